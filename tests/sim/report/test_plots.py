"""The pictures: what they are made from, and that they are made."""

from __future__ import annotations

import numpy as np
import pytest

from sim.report import pictures, plots
from sim.report.plots import Points
from sim.report.pooling import summarise
from sim.report.run_records import read_run
from sim.statistics import Resampling

PNG = b"\x89PNG"
DRAW = Resampling(resamples=500, confidence=0.95, seed=0)


def points(ratios: list[float], values: list[float]) -> Points:
    users = tuple(f"u{place}" for place in range(len(ratios)))
    return Points("cdcda", users, np.array(ratios), np.array(values))


def test_all_pictures_are_drawn(make_run):
    folder = make_run(task="lamp_3", users=12, missing={"cdcda": ("user-003",)})
    drawn = plots.draw_run(summarise([read_run(folder)]))
    assert [path.name for path in drawn] == ["scores.png", "share_ratio.png", "loss_curves.png"]
    for path in drawn:
        assert path.read_bytes().startswith(PNG)
        assert path.stat().st_size > 10_000


def test_same_numbers_same_bytes(make_run):
    results = summarise([read_run(make_run(users=3))])
    first = pictures.save(plots.scores_figure(results), results.runs[0].folder / "a.png")
    second = pictures.save(plots.scores_figure(results), results.runs[0].folder / "b.png")
    assert first.read_bytes() == second.read_bytes()


def test_run_without_answers_or_training_has_no_pictures(make_run):
    folder = make_run(users=2, queries=0, methods=("device",))
    assert plots.draw_run(summarise([read_run(folder)])) == ()


def test_single_user_and_single_query_are_drawn(make_run):
    folder = make_run(users=1, queries=1)
    assert len(plots.draw_run(summarise([read_run(folder)]))) == 3


def test_ratio_in_effect_is_what_was_asked_as_far_as_allowed(make_run):
    run = read_run(make_run(users=6, methods=("cdcda",), ratios=(0.3,)))
    (found,) = plots.ratio_points(run, {"cdcda@0.3": dict.fromkeys(run.registry, 0.5)})
    allowed = [run.preferences[user].ratio for user in found.users]
    assert list(found.ratios) == [min(0.3, ratio) for ratio in allowed]


def test_trend_of_few_ratios_is_the_mean_of_each():
    found = plots.ratio_trend(points([0.5, 0.5, 1.0, 1.0], [0.1, 0.3, 0.6, 0.8]), DRAW)
    assert list(found.ratios) == [0.5, 1.0]
    assert list(found.middle) == pytest.approx([0.2, 0.7])


def test_trend_of_many_ratios_is_the_least_squares_line():
    draw = np.random.default_rng(0)
    ratios = np.linspace(0, 1, 30)
    values = 0.2 + 0.3 * ratios + draw.normal(0, 0.02, 30)
    found = plots.ratio_trend(points(list(ratios), list(values)), DRAW)
    slope, start = np.polyfit(ratios, values, 1)
    assert found.middle[0] == pytest.approx(start)
    assert found.middle[-1] == pytest.approx(start + slope)
    assert (found.low < found.middle).all()
    assert (found.middle < found.high).all()


def test_loss_curves_share_a_grid_and_keep_their_ends(make_run):
    run = read_run(make_run(users=3))
    found = plots.loss_curves(run, "direct_ft")
    assert found.shape == (3, plots.CURVE_POINTS)
    losses = run.adaptations["direct_ft", "user-000"].losses
    assert (found[0, 0], found[0, -1]) == pytest.approx((losses[0], losses[-1]))
    assert plots.loss_curves(run, "device").size == 0
