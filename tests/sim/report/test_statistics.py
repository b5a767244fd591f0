"""Intervals, differences and power against hand calculations, scipy and brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import f1_score

from lamp import metrics
from lamp.metrics import QueryScore
from lamp.tasks import TASKS, Task
from sim import statistics
from sim.statistics import MOST_USERS, Resampling, UserSums

TEXT, RATING, TAGS = TASKS["lamp_4"], TASKS["lamp_3"], TASKS["lamp_2"]
DRAW = Resampling(resamples=2000, confidence=0.95, seed=7)


def text_score(value: float) -> QueryScore:
    return QueryScore(parsed=True, rouge1=value, rougeL=value / 2)


def sums_of(task: Task, *repetitions: dict[str, list[QueryScore]]) -> UserSums:
    rows = [
        {user: metrics.sums(task, scores) for user, scores in repetition.items()}
        for repetition in repetitions
    ]
    return statistics.make_user_sums(task, rows)


def one_query_each(values: list[float]) -> UserSums:
    return sums_of(TEXT, {f"u{place:03}": [text_score(v)] for place, v in enumerate(values)})


def random_tags(seed: int, users: int = 6) -> dict[str, list[QueryScore]]:
    draw = np.random.default_rng(seed)
    return {
        f"u{user}": [
            QueryScore(guess >= 0, gold=int(draw.integers(15)), prediction=guess)
            for guess in map(int, draw.integers(-1, 15, size=5 + user))
        ]
        for user in range(users)
    }


def test_two_users_hand_calculated():
    # resamples of {0, 1} have the means 0, 1/2, 1 with shares 1/4, 1/2, 1/4
    found = statistics.estimate(one_query_each([0.0, 1.0]), DRAW)["rouge1"]
    assert (found.value, found.low, found.high) == (0.5, 0.0, 1.0)


def test_interval_of_a_mean_agrees_with_scipy():
    values = np.random.default_rng(1).normal(0.4, 0.1, 30)
    found = statistics.estimate(one_query_each(list(values)), DRAW)["rouge1"]
    z = statistics.widened_quantile(30, 0.95)
    expected = stats.bootstrap(
        (values,),
        np.mean,
        confidence_level=2 * stats.norm.cdf(z) - 1,
        n_resamples=5000,
        method="percentile",
        rng=np.random.default_rng(2),
    ).confidence_interval
    width = expected.high - expected.low
    assert found.low == pytest.approx(expected.low, abs=0.06 * width)
    assert found.high == pytest.approx(expected.high, abs=0.06 * width)


def test_interval_of_a_mean_comes_near_students_t():
    values = np.random.default_rng(3).normal(0.4, 0.1, 12)
    found = statistics.estimate(one_query_each(list(values)), DRAW)["rouge1"]
    low, high = stats.t.interval(0.95, 11, values.mean(), stats.sem(values))
    assert found.low == pytest.approx(low, abs=0.1 * (high - low))
    assert found.high == pytest.approx(high, abs=0.1 * (high - low))


def test_quantile_is_wider_for_few_users():
    assert statistics.widened_quantile(20, 0.95) == pytest.approx(2.0930 * math.sqrt(20 / 19), 1e-4)
    assert statistics.widened_quantile(100_000, 0.95) == pytest.approx(1.96, abs=1e-3)


def test_intervals_cover_as_often_as_they_promise():
    draw, covered = np.random.default_rng(11), 0
    for seed in range(150):
        resampling = Resampling(resamples=400, confidence=0.9, seed=seed)
        skills = draw.normal(0.3, 0.1, 15)  # users are clusters: four alike queries each
        scores = {
            f"u{user:02}": [text_score(skill + noise) for noise in draw.normal(0, 0.05, 4)]
            for user, skill in enumerate(skills)
        }
        found = statistics.estimate(sums_of(TEXT, scores), resampling)["rouge1"]
        covered += found.low <= 0.3 <= found.high
    assert 0.83 <= covered / 150 <= 0.96


def test_macro_f1_of_resamples_equals_sklearn_on_repeated_queries():
    scores = random_tags(5)
    weights = statistics.draw_weights(len(scores), DRAW)[:20]
    fast = statistics._replicates(sums_of(TAGS, scores), weights)["f1"]
    for row, value in zip(weights, fast, strict=True):
        queries = [
            score
            for times, (_, rows) in zip(row, sorted(scores.items()), strict=True)
            for score in rows * int(times)
        ]
        expected = f1_score(
            [score.gold for score in queries],
            [score.prediction for score in queries],
            labels=range(15),
            average="macro",
            zero_division=0.0,
        )
        assert value == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("task", [TEXT, RATING, TAGS], ids=lambda task: task.kind)
def test_values_equal_lamps_pooled_metrics(task):
    draw = np.random.default_rng(4)
    scores = random_tags(6)
    if task is TEXT:
        scores = {user: [text_score(x) for x in draw.random(len(r))] for user, r in scores.items()}
    if task is RATING:
        scores = {
            user: [QueryScore(True, error=float(e)) for e in draw.integers(-4, 5, len(rows))]
            for user, rows in scores.items()
        }
    found = statistics.estimate(sums_of(task, scores), DRAW)
    pooled = metrics.pooled_metrics(task, [s for rows in scores.values() for s in rows], seed=0)
    for name, value in pooled.items():
        if not name.startswith("lamp_compat"):
            assert found[name].value == pytest.approx(value, abs=1e-12)


def test_users_weigh_by_their_queries_and_alike_in_the_users_mean():
    found = statistics.estimate(
        sums_of(TEXT, {"a": [text_score(1.0)], "b": [text_score(0.0)] * 3}), DRAW
    )
    assert found["rouge1"].value == 0.25
    assert found["user_mean_rouge1"].value == 0.5


def test_one_user_has_a_value_and_no_interval():
    found = statistics.estimate(one_query_each([0.4]), DRAW)["rouge1"]
    assert (found.value, found.low, found.high) == (0.4, None, None)
    difference = statistics.compare(one_query_each([0.4]), one_query_each([0.1]), DRAW)["rouge1"]
    assert difference.value == pytest.approx(0.3)
    assert (difference.low, difference.p, difference.minimum_detectable_effect) == (
        None,
        None,
        None,
    )


def test_no_user_gives_no_metric():
    assert statistics.estimate(one_query_each([]), DRAW) == {}


def test_unreadable_large_rating_leaves_only_the_metric_out_that_is_infinite():
    scores = {"a": [QueryScore(True, error=1e200)], "b": [QueryScore(True, error=1.0)]}
    found = statistics.estimate(sums_of(RATING, scores), DRAW)
    assert "rmse" not in found
    assert found["mae"].value == pytest.approx(5e199)


def test_same_seed_same_numbers():
    sums = one_query_each([0.1, 0.5, 0.3, 0.9])
    other = Resampling(DRAW.resamples, DRAW.confidence, seed=8)
    assert statistics.estimate(sums, DRAW) == statistics.estimate(sums, DRAW)
    assert not np.array_equal(statistics.draw_weights(4, DRAW), statistics.draw_weights(4, other))


def test_weights_take_as_many_users_as_there_are():
    weights = statistics.draw_weights(9, DRAW)
    assert weights.shape == (2000, 9)
    assert set(weights.sum(axis=1)) == {9.0}


def test_equal_arms_differ_by_nothing():
    sums = one_query_each([0.1, 0.5, 0.3])
    found = statistics.compare(sums, sums, DRAW)["rouge1"]
    assert (found.value, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)
    assert (found.minimum_detectable_effect, found.required_sample_size) == (None, None)


def test_pairing_is_narrower_than_two_separate_intervals():
    base = list(np.random.default_rng(2).random(20))
    shifted = [value + 0.05 + 0.001 * (place % 3) for place, value in enumerate(base)]
    first, second = one_query_each(shifted), one_query_each(base)
    alone = statistics.estimate(first, DRAW)["rouge1"]
    found = statistics.compare(first, second, DRAW)["rouge1"]
    assert 0.05 < found.low < found.high < 0.052
    assert alone.high - alone.low > 0.1


def test_reversed_difference_is_the_comparison_the_other_way_round():
    draw = np.random.default_rng(9)
    first, second = (one_query_each(list(draw.random(8))) for _ in range(2))
    there = statistics.compare(second, first, DRAW)["rouge1"]
    back = statistics.reverse(statistics.compare(first, second, DRAW)["rouge1"])
    assert back.value == pytest.approx(there.value)
    assert back.low == pytest.approx(there.low, abs=1e-3)
    assert back.high == pytest.approx(there.high, abs=1e-3)
    assert back.p == pytest.approx(there.p, abs=1e-9)


def test_p_value_of_two_users_who_agree_is_one_half():
    # swapping none or both gives the observed size: two of four arrangements
    first, second = one_query_each([0.9, 0.7]), one_query_each([0.5, 0.4])
    assert statistics.compare(first, second, DRAW)["rouge1"].p == pytest.approx(0.5, abs=0.04)


def test_p_value_is_never_zero():
    first, second = one_query_each([0.9] * 30), one_query_each([0.1] * 30)
    assert statistics.compare(first, second, DRAW)["rouge1"].p == 1 / 2001


def test_detectable_difference_hand_calculated():
    # t(.975, 19) = 2.0930, t(.8, 19) = 0.8610
    assert statistics.detectable_difference(0.1, 20, 0.95) == pytest.approx(0.29540, abs=1e-5)


def test_detectable_difference_follows_the_observed_paired_variance():
    gains = np.random.default_rng(5).normal(0.02, 0.05, 40)
    first, second = one_query_each(list(0.4 + gains)), one_query_each([0.4] * 40)
    found = statistics.compare(first, second, DRAW)["rouge1"]
    expected = statistics.detectable_difference(float(stats.sem(gains)), 40, 0.95)
    assert found.minimum_detectable_effect == pytest.approx(expected, rel=0.05)


def test_users_needed_inverts_the_detectable_difference():
    difference = statistics.detectable_difference(0.1, 20, 0.95)
    assert statistics.required_sample_size(difference * 1.000001, 0.1, 20, 0.95) == 20
    assert statistics.required_sample_size(difference / 2, 0.1, 20, 0.95) in range(73, 80)
    assert statistics.required_sample_size(1e-9, 0.1, 20, 0.95) == MOST_USERS + 1
    assert statistics.required_sample_size(0.0, 0.1, 20, 0.95) is None


def test_a_seed_that_repeats_the_others_adds_no_certainty():
    scores = {f"u{place}": [text_score(x)] for place, x in enumerate((0.1, 0.4, 0.2, 0.9, 0.5))}
    once = statistics.estimate(sums_of(TEXT, scores), DRAW)["rouge1"]
    thrice = statistics.estimate(sums_of(TEXT, scores, scores, scores), DRAW)["rouge1"]
    assert thrice.value == pytest.approx(once.value)
    assert (thrice.low, thrice.high) == pytest.approx((once.low, once.high))
    assert thrice.spread == pytest.approx(0.0)
    assert once.spread is None


def test_seeds_are_averaged_and_their_spread_is_told():
    found = statistics.estimate(
        sums_of(
            TEXT,
            {"a": [text_score(0.2)] * 3, "b": [text_score(0.4)] * 3},
            {"a": [text_score(0.8)], "b": [text_score(0.6)]},
        ),
        DRAW,
    )["rouge1"]
    assert found.per_seed == pytest.approx((0.3, 0.7))
    assert found.value == pytest.approx(0.5)  # seeds weigh alike, whatever their queries
    assert found.spread == pytest.approx(0.4 / math.sqrt(2))


def test_user_without_queries_in_one_seed_is_left_out_of_that_seed():
    found = statistics.estimate(
        sums_of(TEXT, {"a": [text_score(0.2)], "b": [text_score(0.4)]}, {"b": [text_score(0.6)]}),
        DRAW,
    )["rouge1"]
    assert found.per_seed == pytest.approx((0.3, 0.6))
    assert found.low is not None


def test_spearman_agrees_with_scipy_ties_included():
    draw = np.random.default_rng(3)
    places = (0.0, 0.1, 0.5, 1.0)
    values = draw.integers(0, 4, size=(50, 4)).astype(float)
    values = values[[len(set(row)) > 1 for row in values]]
    expected = [stats.spearmanr(places, row).statistic for row in values]
    np.testing.assert_allclose(statistics.spearman(places, values), expected)
    assert np.isnan(statistics.spearman(places, np.ones((1, 4)))).all()


def test_the_trend_of_a_curve_redraws_whole_users():
    places = (0.0, 0.5, 1.0)
    rising = [one_query_each([0.1 + gain, 0.5 + gain]) for gain in (0.0, 0.1, 0.2)]
    found = statistics.rank_correlation(places, rising, DRAW)["rouge1"]
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)  # every user rises
    split = [one_query_each([0.3 + g, 0.3 - g, 0.3 + 2 * g]) for g in (0.0, 0.1, 0.2)]
    found = statistics.rank_correlation(places, split, DRAW)["rouge1"]
    assert (found.value, found.low, found.high) == (1.0, -1.0, 1.0)  # one user falls
