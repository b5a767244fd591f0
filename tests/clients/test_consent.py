"""Whatever a server asks, a device sends only what its user allows."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.consent import grant, shared_count, sharing_order
from clients.folder import Device, Policy
from conf.errors import DataError
from lamp.records import Pair, UserHistory


def device(num_records: int, ratio: float, secret: bytes = b"s" * 32, withdrawn=()) -> Device:
    pairs = tuple(Pair(str(number), f"x{number}", "y") for number in range(num_records))
    return Device(Path(), UserHistory("u", (), pairs, ()), Policy(ratio, withdrawn), secret)


@pytest.mark.parametrize(
    ("ratio", "num_records", "expected"),
    [(0.7, 45, 32), (0.5, 5, 3), (0.1, 4, 0), (0.1, 5, 1), (0.0, 9, 0), (1.0, 9, 9), (0.3, 0, 0)],
)
def test_counts_round_half_up_in_decimal(ratio, num_records, expected):
    assert shared_count(ratio, num_records) == expected


@given(
    num_records=st.integers(0, 60),
    ratio=st.floats(0, 1),
    asked=st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=8),
)
def test_the_union_of_all_grants_stays_inside_the_consented_records(num_records, ratio, asked):
    own = device(num_records, ratio)
    allowed = set(sharing_order(own.history.pairs, own.secret)[: shared_count(ratio, num_records)])
    sent = {pair for request in asked for pair in grant(own, [request]).pairs}
    assert sent <= allowed


@given(num_records=st.integers(0, 60), small=st.floats(0, 1), large=st.floats(0, 1))
def test_a_smaller_share_lies_inside_a_larger_one(num_records, small, large):
    own = device(num_records, 1.0)
    small, large = sorted((small, large))
    granted = grant(own, [small, large])
    assert granted.counts[0] <= granted.counts[1] == len(granted.pairs)
    assert grant(own, [small]).pairs == granted.pairs[: granted.counts[0]]


def test_withdrawn_records_never_leave():
    own = device(10, 1.0, withdrawn=("3", "7"))
    granted = grant(own, [1.0, 0.5])
    assert {pair.id for pair in granted.pairs} == set("012345689") - {"3", "7"}
    half = sharing_order(own.history.pairs, own.secret)[:5]
    assert granted.counts == (8, sum(pair.id not in ("3", "7") for pair in half))


def test_the_order_depends_on_the_secret_and_not_on_the_file():
    pairs = device(30, 1.0).history.pairs
    assert sharing_order(pairs, b"a" * 32) == sharing_order(pairs[::-1], b"a" * 32)
    assert sharing_order(pairs, b"a" * 32) != sharing_order(pairs, b"b" * 32)


def test_a_ratio_outside_its_bounds_is_refused():
    with pytest.raises(DataError, match=r"ratio must lie in \[0, 1\], got 1.5"):
        Policy(1.5)
