"""Whatever a server asks, a device sends only what its user allows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.bounds import own_settings
from clients.folder import Device
from clients.outbound import (
    check_recipe,
    grant,
    granted_ratio,
    largest_share,
    shared_count,
)
from clients.policy import UNBOUNDED, Policy
from clients.share_order import sharing_order
from conf.compose import compose
from conf.errors import DataError, ProtocolError
from lamp.records import Pair, ProfileItem, UserHistory
from protocol.recipe import Recipe
from protocol.settings import settings_of

SELECTIONS = ("random", "recent", "oldest", "sensitive")
TEXTS = ("x", "call Dr. Baker", "mail a@b.org or @ann_b", "see www.a.org", "a quiet film")


def device(num_records: int, ratio: float, secret: bytes = b"s" * 32, **policy) -> Device:
    """Record n is written on day n // 2 and holds the n-th of TEXTS."""
    pairs = tuple(Pair(str(n), f"{TEXTS[n % len(TEXTS)]} {n}", "y") for n in range(num_records))
    items = tuple(
        ProfileItem(pair.id, {}, f"2020-01-{1 + number // 2:02d}")
        for number, pair in enumerate(pairs)
    )
    return Device(Path(), UserHistory("u", items, pairs, ()), Policy(ratio, **policy), secret)


def shuffled(own: Device) -> Device:
    return replace(own, history=replace(own.history, pairs=own.history.pairs[::-1]))


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
    select=st.sampled_from(SELECTIONS),
)
def test_the_union_of_all_grants_stays_inside_the_consented_records(
    num_records, ratio, asked, select
):
    own = device(num_records, ratio, select=select)
    allowed = set(sharing_order(own)[: largest_share(ratio, num_records)])
    sent = {pair for request in asked for pair in grant(own, [request]).pairs}
    assert sent <= allowed


@given(
    num_records=st.integers(0, 60),
    small=st.floats(0, 1),
    large=st.floats(0, 1),
    select=st.sampled_from(SELECTIONS),
)
def test_a_smaller_share_lies_inside_a_larger_one(num_records, small, large, select):
    own = device(num_records, 1.0, select=select)
    small, large = sorted((small, large))
    granted = grant(own, [small, large])
    assert granted.counts[0] <= granted.counts[1] == len(granted.pairs)
    assert grant(own, [small]).pairs == granted.pairs[: granted.counts[0]]


def test_nonsense_is_granted_nothing():
    assert [granted_ratio(asked, Policy(0.5)) for asked in (float("nan"), -1, 0, 2, float("inf"))] \
        == [0, 0, 0, 0.5, 0.5]  # fmt: skip


def test_withdrawn_records_never_leave():
    own = device(10, 1.0, withdrawn=("3", "7"))
    granted = grant(own, [1.0, 0.5])
    assert {pair.id for pair in granted.pairs} == set("012345689") - {"3", "7"}
    half = sharing_order(own)[:5]
    assert granted.counts == (8, sum(pair.id not in ("3", "7") for pair in half))


@pytest.mark.parametrize("select", SELECTIONS)
def test_the_order_depends_on_the_secret_and_not_on_the_file(select):
    own, other = (device(30, 1.0, secret, select=select) for secret in (b"a" * 32, b"b" * 32))
    assert sharing_order(own) == sharing_order(shuffled(own))
    assert sharing_order(own) != sharing_order(other)


def test_recent_and_oldest_go_by_date():
    days = {
        select: [int(pair.id) // 2 for pair in sharing_order(device(10, 1.0, select=select))]
        for select in ("recent", "oldest")
    }
    assert days == {
        "recent": [4, 4, 3, 3, 2, 2, 1, 1, 0, 0],
        "oldest": [0, 0, 1, 1, 2, 2, 3, 3, 4, 4],
    }


def test_months_of_one_digit_come_before_october():
    dates = ("2017-10-2", "2017-2-3", "2016-12-30", "2017-02-11 08:00:00")
    items = tuple(ProfileItem(date, {}, date) for date in dates)
    pairs = tuple(Pair(date, "x", "y") for date in dates)
    history = UserHistory("u", items, pairs, ())
    own = Device(Path(), history, Policy(1.0, select="oldest"), b"s" * 32)
    expected = ["2016-12-30", "2017-2-3", "2017-02-11 08:00:00", "2017-10-2"]
    assert [pair.id for pair in sharing_order(own)] == expected


def test_the_most_sensitive_records_stay_at_home():
    shared = [pair.input[:-2] for pair in sharing_order(device(5, 1.0, select="sensitive"))]
    assert set(shared[:2]) == {"x", "a quiet film"}
    assert shared[2:] == ["see www.a.org", "call Dr. Baker", "mail a@b.org or @ann_b"]


def test_what_the_policy_redacts_never_leaves_and_is_counted():
    own = device(5, 1.0, redact=("input",))
    granted = grant(own, [1.0])
    found = {
        pair.id: (pair.input, number)
        for pair, number in zip(granted.pairs, granted.redactions, strict=True)
    }
    assert found == {
        "0": ("x 0", 0),
        "1": ("call Dr. [name] 1", 1),
        "2": ("mail [e-mail] or [handle] 2", 2),
        "3": ("see [url] 3", 1),
        "4": ("a quiet film 4", 0),
    }
    assert own.history.pairs[1].input == "call Dr. Baker 1"


def test_adapter_weights_stay_unless_the_user_permits_them():
    with pytest.raises(ProtocolError, match="user u: the server asks for adapter weights"):
        check_recipe(device(3, 1.0), Recipe(federated=True))
    check_recipe(device(3, 1.0, permits=("weights",)), Recipe(federated=True))
    check_recipe(device(3, 1.0), Recipe())


def test_texts_of_answers_stay_unless_the_user_permits_them():
    asked = settings_of(compose(["evaluation.ship_predictions=true"]))
    own = {"task": asked.task, "bounds": UNBOUNDED, "numbers": "exact"}
    assert not own_settings(device(3, 1.0, **own), asked).evaluation.ship_predictions
    permitted = own_settings(device(3, 1.0, permits=("texts",), **own), asked)
    assert permitted.evaluation.ship_predictions


def test_a_ratio_outside_its_bounds_is_refused():
    with pytest.raises(DataError, match=r"ratio must lie in \[0, 1\], got 1.5"):
        Policy(1.5)
