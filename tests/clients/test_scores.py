"""The three scores against examples calculated by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from clients.dac24.scores import (
    ALONE,
    NO_DOMAIN,
    dissimilarity,
    domain_score,
    dominant_domain,
    embedding_entropy,
)
from lamp.dialogue.lexicons import Lexicon

MEDICAL = Lexicon("medical", ("fever", "dose"))
TRAVEL = Lexicon("travel", ("train", "hotel", "dose"))


@pytest.mark.parametrize(
    ("norms", "expected"),
    [
        ([1.0, 1.0, 1.0, 1.0], 1.0),  # evenly spread
        ([2.0, 1.0, 1.0], (0.5 * math.log(2) + 0.5 * math.log(4)) / math.log(3)),
        ([3.0, 1.0], -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)) / math.log(2)),  # .8113
        ([1.0, 0.0], 0.0),  # one token carries all
        ([7.0], 0.0),  # log 1 is 0: defined as nothing
        ([], 0.0),
    ],
)
def test_entropy_of_the_shares_of_the_masses(norms, expected):
    assert embedding_entropy(np.array(norms), len(norms)) == pytest.approx(expected)


def test_entropy_of_token_counts_is_one_where_all_differ_and_less_where_some_repeat():
    assert embedding_entropy(np.ones(5), 5) == pytest.approx(1)
    repeated = embedding_entropy(np.array([3.0, 1.0, 1.0]), 5)
    assert repeated == pytest.approx(-(0.6 * math.log(0.6) + 0.4 * math.log(0.2)) / math.log(5))


def test_entropy_does_not_depend_on_the_scale_of_the_embeddings():
    norms = np.array([1.0, 2.0, 5.0])
    assert embedding_entropy(norms, 3) == pytest.approx(embedding_entropy(10 * norms, 3))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("a fever a dose", (2 / 4 + 1 / 4) / 2),  # dose stands in both lexicons
        ("fever fever", (2 / 2 + 0 / 2) / 2),  # repeated words count again
        ("nothing of it", 0.0),
        ("", 0.0),
    ],
)
def test_domain_score_is_the_mean_share_over_the_lexicons(words, expected):
    assert domain_score(words.split(), [MEDICAL, TRAVEL]) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("train hotel fever", "travel"),
        ("dose", "medical"),  # a tie: the first lexicon
        ("nothing of it", NO_DOMAIN),
    ],
)
def test_the_dominant_domain_has_most_words(words, expected):
    assert dominant_domain(words.split(), [MEDICAL, TRAVEL]) == expected


def test_dissimilarity_is_the_mean_of_one_minus_cosine():
    others = np.array([[1, 0], [0, 1], [-1, 0]], dtype=np.float32)
    assert dissimilarity(np.array([1, 0], dtype=np.float32), others) == pytest.approx(
        (0 + 1 + 2) / 3
    )
    assert dissimilarity(np.array([1, 0], dtype=np.float32), others[:0]) == ALONE
