"""Variety by hand, truth by group, and no text in what is written down."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from lamp.records import Pair
from strategy.diagnosis import UserChoice, Verdict, diagnose, distinct
from strategy.filters import Candidate, Scores, Selection

GOOD, ODD = Scores(0.9, 0.9, 0.4, 1.0, 1.0), Scores(0.1, 0.9, 0.8, 1.0, 1.0)
SHARED = (Pair("r0", "a robot runs far", "sci-fi"), Pair("r1", "a clown falls down", "comedy"))


def candidate(source: str, index: int, text: str, label: str, scores: Scores) -> Candidate:
    return Candidate(source, Pair(f"{source}/{index}", text, label), None, scores)


CANDIDATES = (
    candidate("r0", 0, "an android runs far", "sci-fi", GOOD),
    candidate("r0", 1, "a wizard sleeps here", "fantasy", ODD),
    candidate("r1", 0, "a jester runs down", "comedy", GOOD),
    Candidate("r1", None, "no_input", None),
)
KEPT = tuple(each.pair for each in CANDIDATES if each.scores is GOOD)
CHOICE = UserChoice(SHARED, CANDIDATES, Selection(KEPT, {"scf": 1, "no_input": 1}, 4))


def truth(user: str, shared: Pair, written: Pair) -> Verdict:
    assert user == "ana"
    return Verdict(same_facts=None, right_label=shared.response == written.response)


def test_distinct_n_by_hand():
    assert distinct(["a b a b"], 1, 99) == 0.5
    assert distinct(["a b a b"], 2, 99) == pytest.approx(2 / 3)  # ab, ba, ab
    assert distinct(["a b", "b a"], 2, 99) == 1.0  # no pair crosses two texts
    assert distinct(["a a a a b"], 1, 4) == 0.25  # cut to four words
    assert distinct([], 1, 9) is None


def test_kept_and_rejected_are_told_apart():
    shared, kept, rejected = diagnose("cdcda", {"ana": CHOICE}, truth, seed=0)
    assert [each.group for each in (shared, kept, rejected)] == ["shared", "kept", "rejected"]
    assert [each.texts for each in (shared, kept, rejected)] == [2, 2, 1]  # unreadable: neither
    assert (kept.right_label, rejected.right_label) == (1.0, 0.0)
    assert kept.same_facts is None
    assert (kept.source_rouge, rejected.source_rouge) == (0.4, 0.8)
    assert rejected.self_rouge is None  # one text alone
    assert kept.self_rouge == pytest.approx(0.25)  # "runs" of four words each


def test_nobody_who_knows_leaves_truth_out():
    for group in diagnose("cdcda", {"ana": CHOICE}, None, seed=0):
        assert group.right_label is None
        texts = [value for value in asdict(group).values() if isinstance(value, str)]
        assert texts == ["cdcda", group.group]
