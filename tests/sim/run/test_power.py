"""The power that a dry run states: from earlier runs of the task, or from the prior."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import pytest
from rich.console import Console

from conf.compose import compose
from lamp.dataset import LampData
from lamp.records import Query, UserHistory
from lamp.tasks import TASKS
from sim.report.pooling import summarise, write_results
from sim.report.run_records import read_run
from sim.run import probe
from sim.run.estimate import print_estimate
from sim.run.power import PRIORS, Spread, earlier_spread, minimum_detectable_effect, planned_power
from sim.statistics import detectable_difference
from tests.plugins.small_runs import words


def users(number, queries):
    asked = tuple(Query(f"q{n}", "x", "y") for n in range(queries))
    return [UserHistory(f"u{n}", (), (), asked) for n in range(number)]


def data_of(*targets, task="lamp_4"):
    return LampData(TASKS[task], tuple(targets), (), "user", {}, ())


@pytest.fixture
def config(tmp_path):
    composed = compose([])
    return replace(composed, paths=replace(composed.paths, runs=str(tmp_path / "runs")))


def test_the_prior_finds_what_a_measured_run_could_find():
    found = minimum_detectable_effect(Spread(0.0156, 10.3, ""), users(40, 10), 0.95)
    assert found == pytest.approx(0.007, abs=0.0005)  # as 40 authors with 413 queries did


def test_fewer_queries_per_user_are_noise_and_more_do_not_help():
    spread = Spread(0.02, 10, "")
    ten, five, forty = (
        minimum_detectable_effect(spread, users(30, each), 0.95) for each in (10, 5, 40)
    )
    assert five == pytest.approx(ten * math.sqrt(2))
    assert forty == ten
    assert ten == pytest.approx(detectable_difference(0.02 / math.sqrt(30), 30, 0.95))


@pytest.mark.parametrize("task", list(TASKS))
def test_every_task_has_a_prior(task, config):
    found = planned_power(config, data_of(*users(20, 10), task=task))
    assert "20 users find a true difference of" in found
    assert found.endswith("from a prior, as no earlier run of this task is here")


def test_an_earlier_runs_spread_gives_back_what_that_run_could_detect(make_run, config, tmp_path):
    folder = make_run(users=20, methods=("device", "direct_ft"))
    results = summarise([read_run(folder)])
    write_results(results)
    found = earlier_spread(tmp_path / "runs", "lamp_4", "rouge1")
    expected = results.arm("direct_ft").differences["device"]["rouge1"].minimum_detectable_effect
    assert minimum_detectable_effect(found, users(20, 10), 0.95) == pytest.approx(expected)
    assert earlier_spread(tmp_path / "runs", "lamp_5", "rouge1") is None
    assert "from 1 earlier run of this task" in planned_power(config, data_of(*users(20, 10)))


def test_a_damaged_run_tells_nothing(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "results.jsonl").write_text("nonsense\n{}\n")
    assert earlier_spread(tmp_path, "lamp_4", "rouge1") is None


def test_one_user_finds_nothing(config):
    assert "fewer than two users" in planned_power(config, data_of(*users(1, 9), *users(5, 0)))


def test_a_dry_run_prints_it_within_eighty_columns(qwen2_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(probe, "PROBE_S", 0.01)
    config, out = compose(words(qwen2_folder, tmp_path, "users=20")), io.StringIO()
    print_estimate(config, data_of(*users(20, 8)), Console(file=out, width=80))
    assert "power: 20 users find" in out.getvalue()
    assert max(map(len, out.getvalue().splitlines())) <= 80
    assert PRIORS["rouge1"] == 0.022
