"""The buffer never exceeds its bytes, whatever is offered in whatever order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.dac24.buffer import Buffer, BufferEntry
from clients.dac24.replacement import RULES, ReplacementContext
from conf.errors import RunError
from lamp.records import Pair
from protocol.recipe import ALL_SCORES


def kept(
    name: str,
    vector: tuple[float, ...] = (1.0, 0.0),
    domain: str = "",
    entropy: float = 0.5,
    domain_score: float = 0.5,
    text: str = "text",
) -> BufferEntry:
    unit = np.array(vector, dtype=np.float32)
    unit /= np.linalg.norm(unit)
    return BufferEntry(Pair(name, text, "answer"), domain, unit, entropy, domain_score)


def full_of(*records: BufferEntry) -> Buffer:
    buffer = Buffer(len(records), 200)
    for record in records:
        buffer.put(record)
    return buffer


def means(scores=ALL_SCORES, seen: int = 10, seed: int = 0) -> ReplacementContext:
    return ReplacementContext(scores, seen, np.random.default_rng(seed))


def test_bytes_of_a_bin_are_those_of_texts_embedding_and_scores():
    record = kept("a1", domain="med", text="käse")
    assert record.num_bytes == 2 + 5 + 6 + 3 + 2 * 4 + 2 * 8  # id, utf-8, answer, domain, D, scores


def test_a_record_larger_than_a_bin_is_refused():
    buffer = Buffer(2, 60)
    assert buffer.fits(kept("a", text="x" * 29))  # 1 + 29 + 6 + 0 + 8 + 16 = 60
    large = kept("a", text="x" * 30)
    assert not buffer.fits(large)
    with pytest.raises(RunError, match="at most 60 bytes, got 61"):
        buffer.put(large)


def test_a_full_buffer_wants_a_place():
    with pytest.raises(RunError, match="all 1 bins are taken"):
        full_of(kept("a")).put(kept("b"))


@pytest.mark.parametrize("rule", sorted(RULES))
@given(
    offers=st.lists(
        st.tuples(
            st.text(max_size=60),
            st.sampled_from(["", "med", "travel"]),
            st.floats(0, 1),
            st.floats(0, 1),
            st.integers(0, 5),
        ),
        max_size=30,
    ),
    bins=st.integers(1, 4),
    bin_bytes=st.integers(30, 120),
)
def test_the_buffer_never_exceeds_its_bytes_at_any_step(rule, offers, bins, bin_bytes):
    buffer = Buffer(bins, bin_bytes)
    for seen, (text, domain, entropy, score, angle) in enumerate(offers, start=1):
        vector = (float(np.cos(angle)), float(np.sin(angle)))
        record = kept(str(seen), vector, domain, entropy, score, text)
        place = None
        if not buffer.fits(record):
            continue
        if buffer.full:
            place = RULES[rule](buffer, record, means(seen=seen))
            if place is None:
                continue
        buffer.put(record, place)
        assert len(buffer) <= bins
        assert all(each.num_bytes <= bin_bytes for each in buffer)
        assert buffer.num_bytes <= bins * bin_bytes


def test_dissimilarities_are_to_the_others_of_the_same_domain():
    buffer = full_of(
        kept("a", (1, 0), "med"), kept("b", (0, 1), "med"), kept("c", (-1, 0), "med"), kept("d")
    )
    # a: (1 + 2) / 2, b: (1 + 1) / 2, c: (2 + 1) / 2, d is alone in its domain
    assert buffer.dissimilarities() == pytest.approx([1.5, 1.0, 1.5, 1.0])


def test_a_record_is_replaced_only_when_it_loses_in_all_three_scores():
    buffer = full_of(
        kept("a", (1, 0), "med", entropy=0.9, domain_score=0.1),
        kept("b", (1, 0), "med", entropy=0.2, domain_score=0.1),
    )
    # the newcomer's dissimilarity to a and b is 1, theirs to one another is 0
    better = kept("new", (0, 1), "med", entropy=0.5, domain_score=0.3)
    assert RULES["scores"](buffer, better, means()) == 1
    assert RULES["scores"](buffer, kept("n", (0, 1), "med", 0.5, 0.1), means()) is None  # equal
    assert RULES["scores"](buffer, kept("n", (1, 0), "med", 0.5, 0.3), means()) is None  # alike


@pytest.mark.parametrize(
    ("score", "place"), [("entropy", 1), ("domain", 0), ("dissimilarity", None)]
)
def test_one_score_alone_looks_at_nothing_else(score, place):
    buffer = full_of(
        kept("a", (1, 0), "med", entropy=0.9, domain_score=0.1),
        kept("b", (0, 1), "med", entropy=0.2, domain_score=0.9),
    )
    newcomer = kept("new", (1, 1), "med", entropy=0.5, domain_score=0.5)
    assert RULES["scores"](buffer, newcomer, means((score,))) == place


def test_of_several_beaten_records_the_seed_draws_one():
    buffer = full_of(*(kept(str(n), (1, 0), "med", 0.1, 0.1) for n in range(4)))
    newcomer = kept("new", (0, 1), "med", 0.5, 0.5)
    drawn = [RULES["scores"](buffer, newcomer, means(seed=seed)) for seed in range(40)]
    assert set(drawn) == {0, 1, 2, 3}
    assert drawn == [RULES["scores"](buffer, newcomer, means(seed=seed)) for seed in range(40)]


def test_fifo_replaces_what_came_first():
    buffer = full_of(kept("a"), kept("b"))
    order = []
    for name in ("c", "d", "e"):
        place = RULES["fifo"](buffer, kept(name), means())
        order.append(place)
        buffer.put(kept(name), place)
    assert order == [0, 1, 0]


def test_random_keeps_every_record_of_the_stream_with_the_same_probability():
    bins, stream, runs = 3, 12, 3000
    times = np.zeros(stream)
    generator = np.random.default_rng(5)
    for _ in range(runs):
        buffer = Buffer(bins, 200)
        for seen in range(1, stream + 1):
            record = kept(str(seen - 1))
            place = None
            if buffer.full:
                place = RULES["random"](buffer, record, ReplacementContext((), seen, generator))
                if place is None:
                    continue
            buffer.put(record, place)
        for each in buffer:
            times[int(each.pair.id)] += 1
    assert times / runs == pytest.approx(bins / stream, abs=0.04)


def test_k_center_lets_one_of_the_two_most_alike_go():
    near, nearer = (1.0, 0.05), (1.0, 0.1)
    buffer = full_of(kept("a", (1, 0)), kept("b", near), kept("c", (0, 1)))
    # a and b are closest; b is closer to c than a is, so b goes
    assert RULES["k_center"](buffer, kept("new", (-1, 0)), means()) == 1
    spread = full_of(kept("a", (1, 0)), kept("c", (0, 1)))
    assert RULES["k_center"](spread, kept("new", nearer), means()) is None
