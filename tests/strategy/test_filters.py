"""Thresholds as in Eq. 2-4, in the paper's order, with disjoint counts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf.schema import FiltersConfig
from lamp.records import Pair
from strategy.filters import (
    Candidate,
    Scores,
    best,
    length_ratio,
    rejection,
    select,
    select_random,
)

PAIR = Pair("1/0", "x", "y")
UNIT = st.floats(0, 1)


def candidate(entails=0.9, entailed=0.9, rouge_l=0.5, characters=1.0, words=1.0) -> Candidate:
    return Candidate("1", PAIR, None, Scores(entails, entailed, rouge_l, characters, words))


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (candidate(), None),
        (candidate(entails=0.75, entailed=0.75, rouge_l=0.75, characters=0.8), None),  # >=, <=
        (candidate(characters=1.5), None),
        (candidate(entails=0.74), "scf"),
        (candidate(entailed=0.74), "scf"),
        (candidate(rouge_l=0.76), "tdf"),
        (candidate(characters=0.79), "lsf"),
        (candidate(characters=1.51), "lsf"),
        (candidate(entails=0.1, rouge_l=1.0, characters=9.0), "scf"),  # the first one counts
        (candidate(rouge_l=1.0, characters=9.0), "tdf"),
        (Candidate("1", None, "no_response", None), "no_response"),
    ],
)
def test_each_threshold_rejects_just_beyond_its_bound(made, expected):
    assert rejection(made, FiltersConfig()) == expected


def test_a_cosine_is_held_against_the_threshold_of_cosines():
    by_cosine = FiltersConfig(judge="embedding", eps_scf=0.0, eps_embedding=0.85)
    assert rejection(candidate(entails=0.84, entailed=0.84), by_cosine) == "scf"
    assert rejection(candidate(entails=0.85, entailed=0.85), by_cosine) is None


def test_the_length_unit_is_a_key():
    made = candidate(characters=1.0, words=3.0)
    assert rejection(made, FiltersConfig(length_unit="words")) == "lsf"


CANDIDATES = st.lists(
    st.builds(candidate, UNIT, UNIT, UNIT, st.floats(0, 3), st.floats(0, 3))
    | st.just(Candidate("1", None, "no_input", None))
)


@given(CANDIDATES)
def test_kept_and_rejected_add_up_to_generated(candidates):
    selection = select(candidates, FiltersConfig())
    assert len(selection.kept) + sum(selection.rejected.values()) == selection.generated
    assert selection.generated == len(candidates)


def test_an_empty_original_accepts_only_an_empty_text():
    assert (length_ratio(0, 0), length_ratio(0, 3), length_ratio(4, 2)) == (1.0, float("inf"), 0.5)


def quantile(share, **keys):
    return FiltersConfig(keep_share=share, **keys)


def test_the_best_share_is_ranked_by_all_three_scores():
    made = [
        candidate(entails=0.9, entailed=0.2, rouge_l=0.1, characters=1.0),  # ranks 4, 1, 1
        candidate(entails=0.8, entailed=0.8, rouge_l=0.3, characters=1.2),  # ranks 2, 3, 2
        candidate(entails=0.9, entailed=0.9, rouge_l=0.9, characters=3.0),  # ranks 1, 4, 4
        candidate(entails=0.7, entailed=0.7, rouge_l=0.2, characters=0.5),  # ranks 3, 2, 3
        Candidate("1", None, "no_input", None),
    ]
    assert best(made, quantile(0.25)) == {0}
    assert best(made, quantile(0.5)) == {0, 1}
    assert best(made, quantile(0.75)) == {0, 1, 3}
    assert best(made, quantile(1.0)) == {0, 1, 2, 3}


def test_half_as_long_and_twice_as_long_are_equally_far_and_equal_scores_go_by_content():
    texts = ("a", "b", "c", "d")
    made = [
        Candidate("1", Pair("1/0", text, "y"), None, Scores(0.9, 0.9, 0.5, ratio, 1.0))
        for text, ratio in zip(texts, (0.5, 2.0, 0.5, 2.0), strict=True)
    ]
    chosen = {made[place].pair.input for place in best(made, quantile(0.5))}
    again = {made[::-1][place].pair.input for place in best(made[::-1], quantile(0.5))}
    assert len(chosen) == 2
    assert chosen == again


def test_the_unit_of_lengths_counts_in_the_ranking_too():
    made = [candidate(characters=1.0, words=3.0), candidate(characters=3.0, words=1.0)]
    assert best(made, quantile(0.5)) == {0}
    assert best(made, quantile(0.5, length_unit="words")) == {1}


def test_an_endless_or_empty_length_is_the_worst():
    made = [
        candidate(characters=float("inf")),
        candidate(characters=0.0),
        candidate(characters=2.0),
    ]
    assert best(made, quantile(0.3)) == {2}


@given(CANDIDATES, st.floats(0.01, 1))
def test_the_best_share_has_the_size_asked_for_and_its_counts_add_up(candidates, share):
    selection = select(candidates, quantile(share))
    readable = sum(each.pair is not None for each in candidates)
    assert abs(len(selection.kept) - share * readable) <= 0.5 + 1e-9
    assert len(selection.kept) + sum(selection.rejected.values()) == len(candidates)
    assert set(selection.rejected) <= {"quantile", "no_input"}
    drawn = select_random(candidates, quantile(share), seed=0)
    assert len(drawn.kept) == len(selection.kept)


def test_what_is_objected_to_among_the_best_is_not_replaced():
    made = [candidate(rouge_l=0.1), candidate(rouge_l=0.2), candidate(rouge_l=0.3)]
    made[0] = replace(made[0], rejected_by="review")
    selection = select(made, quantile(0.67))
    assert len(selection.kept) == 1
    assert selection.rejected == {"review": 1, "quantile": 1}
