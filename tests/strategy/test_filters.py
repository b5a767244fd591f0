"""Thresholds as in Eq. 2-4, in the paper's order, with disjoint counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf.schema import FiltersConfig
from lamp.records import Pair
from strategy.filters import Candidate, Scores, length_ratio, rejection, select

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


@given(
    st.lists(
        st.builds(candidate, UNIT, UNIT, UNIT, st.floats(0, 3), st.floats(0, 3))
        | st.just(Candidate("1", None, "no_input", None))
    )
)
def test_kept_and_rejected_add_up_to_generated(candidates):
    selection = select(candidates, FiltersConfig())
    assert len(selection.kept) + sum(selection.rejected.values()) == selection.generated
    assert selection.generated == len(candidates)


def test_an_empty_original_accepts_only_an_empty_text():
    assert (length_ratio(0, 0), length_ratio(0, 3), length_ratio(4, 2)) == (1.0, float("inf"), 0.5)
