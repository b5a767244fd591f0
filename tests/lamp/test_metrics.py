from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.errors import DataError
from lamp.metrics import (
    UNICODE_COUNT,
    QueryScore,
    bootstrap_mid,
    headline,
    metrics_of_sums,
    pooled_metrics,
    read_stars,
    score_query,
    sums,
)
from lamp.tasks import TASKS

CHOICE, MOVIE, STARS, HEADLINE = (TASKS[f"lamp_{n}"] for n in (1, 2, 3, 4))


def score_all(task, answers):
    """Score (prediction, gold) pairs."""
    return [score_query(task, prediction, gold) for prediction, gold in answers]


# --- labels -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prediction", "index"),
    [
        ("[1]", 0),
        (" [2]\n", 1),
        ("1", -1),
        ("[1] because", -1),
        ("", -1),
    ],
)
def test_a_label_is_matched_letter_for_letter_after_stripping(prediction, index):
    assert score_query(CHOICE, prediction, " [1]") == QueryScore(index != -1, 0, index)


def test_a_label_in_other_case_is_wrong():
    assert score_query(MOVIE, "Comedy", "comedy").prediction == -1


def test_macro_f1_counts_every_label_and_no_unparsed_class():
    answers = [("comedy", "comedy"), ("comedy", "action"), ("nonsense", "action"), ("", "comedy")]
    metrics = pooled_metrics(MOVIE, score_all(MOVIE, answers), seed=0)
    # comedy: 1 hit, 2 predicted, 2 gold -> 2·1/4; action: 0; the 13 absent labels: 0
    assert metrics == {"accuracy": 0.25, "f1": 0.5 / 15, "parse_failure_rate": 0.5}


def test_macro_f1_of_a_perfect_run_on_one_of_two_labels_is_a_half():
    metrics = pooled_metrics(CHOICE, score_all(CHOICE, [("[1]", "[1]")] * 3), seed=0)
    assert metrics == {"accuracy": 1.0, "f1": 0.5, "parse_failure_rate": 0.0}


# --- ratings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prediction", "gold", "error", "parsed"),
    [
        (" 4\n", "5", -1.0, True),
        ("4.5", "4", 0.5, True),
        ("1e1", "5", 5.0, True),
        ("7", "5", 2.0, True),  # not clipped
        ("1_0", "5", 5.0, True),  # float() reads it, so LaMP does
        ("great!", "1", 4.0, False),  # the far end of the scale
        ("great!", "2", 3.0, False),
        ("great!", "3", 2.0, False),  # as far from 1: LaMP takes 5
        ("great!", "4", -3.0, False),
        ("", "5", -4.0, False),
        ("5 stars", "5", -4.0, False),
        ("nan", "2", 3.0, False),  # stated deviation
        ("inf", "2", 3.0, False),  # stated deviation
        ("-Infinity", "5", -4.0, False),
        ("4", "4.0", 0.0, True),
    ],
)
def test_an_unreadable_rating_scores_the_worst_end(prediction, gold, error, parsed):
    assert score_query(STARS, prediction, gold) == QueryScore(parsed, error=error)


def test_mae_and_rmse_are_pooled_over_queries():
    metrics = pooled_metrics(STARS, score_all(STARS, [("5", "5"), ("2", "4"), ("x", "4")]), seed=0)
    assert metrics == {
        "mae": 5 / 3,
        "rmse": pytest.approx(math.sqrt(13 / 3), rel=1e-15),
        "parse_failure_rate": 1 / 3,
    }


def test_a_huge_rating_counts_without_a_warning():
    metrics = pooled_metrics(STARS, score_all(STARS, [("1e200", "5")]), seed=0)
    assert metrics["mae"] == 1e200
    assert metrics["rmse"] == math.inf


@given(st.floats())
def test_every_finite_number_is_read_as_float_reads_it(number):
    assert read_stars(repr(number)) == (number if math.isfinite(number) else None)


# --- texts --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prediction", "gold", "rouge1", "rouge_l"),
    [
        (" Cats and dogs\n", "cats AND dogs!", 1.0, 1.0),  # case and punctuation do not count
        ("dogs and cats", "cats and dogs", 1.0, 1 / 3),
        ("running cats", "run cat", 0.0, 0.0),  # no stemmer
        ("the cat the cat", "the cat", 2 / 3, 2 / 3),  # bags of words: precision 1/2, recall 1
        ("café", "caf", 1.0, 1.0),  # the tokenizer knows a-z and 0-9
        ("", "the cat", 0.0, 0.0),
        ("?!", "the cat", 0.0, 0.0),
    ],
)
def test_rouge_is_the_f_measure_without_stemmer(prediction, gold, rouge1, rouge_l):
    score = score_query(HEADLINE, prediction, gold)
    assert score.rouge1 == pytest.approx(rouge1, rel=1e-15)
    assert score.rougeL == pytest.approx(rouge_l, rel=1e-15)
    assert score.parsed == bool(prediction)
    assert score.bertscore is None


def test_a_blank_text_is_a_parse_failure():
    assert not score_query(HEADLINE, " \n", "the cat").parsed


def test_the_headline_rouge_is_the_plain_mean_and_the_median_is_named_apart():
    answers = [("the cat", "the cat"), ("a dog", "the cat"), ("the dog", "the cat")]
    metrics = pooled_metrics(HEADLINE, score_all(HEADLINE, answers), seed=3)
    assert metrics["rouge1"] == 0.5
    assert metrics["rougeL"] == 0.5
    assert "bertscore" not in metrics
    # medians of 1,000 means of 3 values: multiples of 1/6
    assert metrics["lamp_compat_rouge1"] * 6 == pytest.approx(3, abs=1)
    assert metrics == pooled_metrics(HEADLINE, score_all(HEADLINE, answers), seed=3)


def test_bertscore_is_averaged():
    plain = score_query(HEADLINE, " a", " gold")
    assert plain.bertscore is None
    scores = [replace(plain, bertscore=value) for value in (0.25, 0.75)]
    assert pooled_metrics(HEADLINE, scores, seed=0)["bertscore"] == 0.5


@pytest.mark.parametrize("count", [1, 2, 37, 100, 301])
def test_the_median_has_the_bits_of_rouge_scores_aggregator(count):
    from rouge_score.scoring import BootstrapAggregator, Score

    values = np.random.default_rng(count).random(count).tolist()
    aggregator = BootstrapAggregator()
    for value in values:
        aggregator.add_scores({"rouge1": Score(value / 2, value / 3, value)})
    np.random.seed(17)  # the original draws from the global generator
    assert bootstrap_mid(values, seed=17) == aggregator.aggregate()["rouge1"].mid.fmeasure


# --- pooling ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lamp_1", ("accuracy", True)),
        ("lamp_2", ("accuracy", True)),
        ("lamp_3", ("mae", False)),
        ("lamp_4", ("rouge1", True)),
        ("lamp_5", ("rouge1", True)),
        ("lamp_7", ("rouge1", True)),
    ],
)
def test_the_headline_metric_knows_its_direction(name, expected):
    assert headline(TASKS[name]) == expected


@pytest.mark.parametrize("task", [MOVIE, STARS, HEADLINE])
def test_no_scores_are_refused(task):
    with pytest.raises(DataError, match=r"expected scored queries, got none"):
        pooled_metrics(task, [], seed=0)


labels = st.sampled_from([*MOVIE.labels, "nonsense"])
ratings = st.sampled_from(["1", "2", "3", "4", "5", "4.5", "x"])
words = st.lists(
    st.sampled_from(["the", "cat", "sat", "on", "a", "mat", "港湾大桥", "мост"]), max_size=5
).map(" ".join)
SITUATIONS = st.one_of(
    st.tuples(
        st.just(MOVIE), st.lists(st.tuples(labels, st.sampled_from(MOVIE.labels)), min_size=1)
    ),
    st.tuples(st.just(STARS), st.lists(st.tuples(ratings, st.sampled_from("12345")), min_size=1)),
    st.tuples(st.just(HEADLINE), st.lists(st.tuples(words, words), min_size=1, max_size=8)),
)


@given(SITUATIONS, st.data())
@settings(max_examples=40)
def test_sums_of_users_give_the_pooled_metrics(situation, data):
    task, answers = situation
    scores = score_all(task, answers)
    border = data.draw(st.integers(0, len(scores)))
    totals = sums(task, scores[:border]) + sums(task, scores[border:])
    pooled = pooled_metrics(task, scores, seed=0)
    plain = {name: value for name, value in pooled.items() if not name.startswith("lamp_compat")}
    of_sums = {name: float(value) for name, value in metrics_of_sums(task, totals).items()}
    defined = {name: value for name, value in of_sums.items() if not np.isnan(value)}
    assert defined == pytest.approx(plain, rel=1e-12)
    assert of_sums.keys() - defined.keys() <= {"unicode_rouge1"}  # 0/0 where all are in Latin


def test_sums_are_resampled_in_one_array():
    users = np.stack([sums(CHOICE, score_all(CHOICE, [(p, "[1]")])) for p in ("[1]", "[2]")])
    weights = np.array([[2, 0], [1, 1], [0, 0]])
    metrics = metrics_of_sums(CHOICE, weights @ users)
    np.testing.assert_array_equal(metrics["accuracy"], [1.0, 0.5, np.nan])
    np.testing.assert_array_equal(metrics["f1"], [0.5, 1 / 3, np.nan])


def test_sums_carry_a_bertscore_only_where_every_query_has_one():
    with_score = sums(HEADLINE, [QueryScore(True, rouge1=1.0, rougeL=1.0, bertscore=0.5)])
    without = sums(HEADLINE, [QueryScore(True, rouge1=1.0, rougeL=1.0)])
    assert metrics_of_sums(HEADLINE, with_score)["bertscore"] == 0.5
    assert "bertscore" not in metrics_of_sums(HEADLINE, with_score + without)


def test_sums_carry_the_scores_on_unicode_tokens_of_those_who_have_one():
    mixed = sums(
        HEADLINE, score_all(HEADLINE, [("港湾大桥", "港湾大桥"), ("a", "b"), ("x", "мост")])
    )
    assert metrics_of_sums(HEADLINE, mixed)["unicode_rouge1"] == 0.5
    assert mixed[UNICODE_COUNT] == 2
    mixed[UNICODE_COUNT] = np.nan
    assert "unicode_rouge1" not in metrics_of_sums(HEADLINE, mixed)


def test_no_users_have_sums_of_zero():
    assert not sums(STARS, []).any()
    assert sums(STARS, []).shape == (4,)
