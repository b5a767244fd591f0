"""Pooling, pairing and the machine-readable results of a run."""

from __future__ import annotations

import csv
import json
import math
from collections import defaultdict
from dataclasses import replace

import pytest

from conf.errors import RunError
from conf.schema import BaselinesConfig
from conf.seeds import derive_seed
from lamp import metrics
from sim.report.pooling import (
    arm_numbers,
    as_line,
    ratio_curves,
    seed_label,
    summarise,
    write_results,
)
from sim.report.report import write_report
from sim.report.run_records import read_run
from sim.report.verdict import shown_gains, user_gains
from storage import jsonlines


def numbers_in(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [number for each in value for number in numbers_in(each)]
    return [value] if isinstance(value, float) else []


@pytest.mark.parametrize("task", ["lamp_1", "lamp_2", "lamp_3", "lamp_4", "lamp_7"])
def test_values_are_lamps_to_the_last_bit(make_run, task):
    run = read_run(make_run(task=task, users=6))
    found = summarise([run]).arm("cdcda").metrics
    scores = [answer.score for answer in run.answers["cdcda"]]
    pooled = metrics.pooled_metrics(run.task, scores, derive_seed(0, "lamp_compat"))
    assert {name: found[name].value for name in pooled} == pooled


def test_failed_user_is_left_out_of_the_comparison_and_told(make_run):
    results = summarise([read_run(make_run(users=6, missing={"cdcda": ("user-002",)}))])
    cdcda = results.arm("cdcda")
    assert (cdcda.users, cdcda.queries, cdcda.failures) == (5, 50, 1)
    assert results.arm("device").users == 6
    assert cdcda.differences["device"]["rouge1"].users == 5
    assert results.arm("direct_ft").differences["device"]["rouge1"].users == 6


def test_difference_is_taken_over_common_queries_only(make_run):
    folder = make_run(users=3, queries=2)
    lines = list(jsonlines.read(folder / "answers.jsonl"))
    (folder / "answers.jsonl").unlink()
    kept = [line for line in lines if (line["arm"], line["query"]) != ("cdcda", "1-0")]
    jsonlines.append(folder / "answers.jsonl", kept)
    difference = summarise([read_run(folder)]).arm("cdcda").differences["device"]["rouge1"]
    score = {(line["arm"], line["query"]): line["rouge1"] for line in lines}
    common = ("0-0", "0-1", "1-1", "2-0", "2-1")
    by_hand = math.fsum(score["cdcda", q] - score["device", q] for q in common) / 5
    assert difference.value == pytest.approx(by_hand)
    assert difference.queries == 5


def test_differences_are_the_same_both_ways(make_run):
    results = summarise([read_run(make_run(users=5))])
    there = results.arm("cdcda").differences["device"]["rouge1"]
    back = results.arm("device").differences["cdcda"]["rouge1"]
    assert (back.value, back.low, back.high) == (-there.value, -there.high, -there.low)
    assert back.p == there.p


def test_disclosed_sums_give_the_same_numbers(make_run):
    folder = make_run(task="lamp_2", users=5)
    run = read_run(folder)
    full = summarise([run]).arm("cdcda").metrics
    lines = []
    for arm in run.arms:
        scores = defaultdict(list)
        for answer in run.answers[arm.name]:
            scores[answer.user].append(answer.score)
        lines += [
            {
                "arm": arm.name,
                "user": user,
                "query": None,
                "queries": len(own),
                "sums": metrics.sums(run.task, own).tolist(),
            }
            for user, own in scores.items()
        ]
    (folder / "answers.jsonl").unlink()
    jsonlines.append(folder / "answers.jsonl", lines)
    summed = summarise([read_run(folder)]).arm("cdcda")
    assert summed.queries == 50
    assert set(summed.metrics) == set(full)
    for name in summed.metrics:
        assert summed.metrics[name].value == pytest.approx(full[name].value)
        assert summed.metrics[name].low == pytest.approx(full[name].low)


def test_results_file_has_one_finite_line_per_arm(make_run):
    folder = make_run(users=4)
    write_results(summarise([read_run(folder)]))
    lines = list(jsonlines.read(folder / "results.jsonl"))
    assert [line["arm"] for line in lines] == ["device", "direct_ft", "direct_ft_matched", "cdcda"]
    last = lines[-1]
    assert {"method", "users", "queries", "metrics", "differences", "failures"} <= set(last)
    assert {"value", "low", "high"} <= set(last["metrics"]["rouge1"])
    assert {"value", "low", "high"} <= set(last["differences"]["direct_ft"]["rougeL"])
    assert last["parse_failure_rate"] == 0.0
    assert all(map(math.isfinite, numbers_in(lines)))


def test_results_are_the_same_bytes_every_time(make_run):
    folder = make_run(users=4)
    write_results(summarise([read_run(folder)]))
    first = (folder / "results.jsonl").read_bytes()
    write_results(summarise([read_run(folder)]))
    assert (folder / "results.jsonl").read_bytes() == first


def test_users_file_has_a_row_for_everybody(make_run):
    folder = make_run(users=3, missing={"cdcda": ("user-001",)})
    write_report([folder])
    rows = list(csv.DictReader((folder / "users.csv").read_text().splitlines()))
    assert len(rows) == 12
    by_key = {(row["arm"], row["user"]): row for row in rows}
    lost = by_key["cdcda", "user-001"]
    assert (lost["queries"], lost["failed"], lost["rouge1"]) == ("0", "1", "")
    kept = by_key["cdcda", "user-000"]
    assert int(kept["kept"]) == int(kept["synthetic"]) > 0
    assert 0 < float(kept["rouge1"]) < 1
    assert kept["group"] == "open"


def test_seeds_are_pooled_apart_and_averaged(make_run):
    runs = [read_run(make_run(f"seed-{seed}", users=4, seed=seed)) for seed in (2, 0, 1)]
    results = summarise(runs)
    assert [run.config.seed for run in results.runs] == [0, 1, 2]
    alone = [summarise([run]).arm("cdcda").metrics["rouge1"].value for run in results.runs]
    found = results.arm("cdcda").metrics["rouge1"]
    assert found.per_seed == tuple(alone)
    assert found.value == pytest.approx(sum(alone) / 3)
    assert results.arm("cdcda").queries == 120
    assert as_line(results, results.arm("cdcda"))["seeds"] == [0, 1, 2]


def test_runs_of_other_settings_are_no_repetitions(make_run):
    first = read_run(make_run("first", users=2))
    config = replace(first.config, seed=1, filters=replace(first.config.filters, eps_scf=0.5))
    second = replace(first, config=config, folder=first.folder.with_name("second"))
    with pytest.raises(RunError, match=r"'first' and 'second' differ in filters\.eps_scf"):
        summarise([first, second])


def test_other_worlds_and_networks_are_repetitions_and_other_worlds_have_other_people(make_run):
    run = read_run(make_run("first", users=3))
    assert run.config.model.build is not None
    world = replace(run.config, world=replace(run.config.world, seed=7))
    build = replace(run.config.model.build, seed=1)
    networks = replace(run.config, model=replace(run.config.model, build=build))
    others = [
        replace(run, config=config, folder=run.folder.with_name(name))
        for name, config in (("world", world), ("networks", networks))
    ]
    pooled = summarise([run, *others])
    assert pooled.arm("cdcda").users == 6  # three people of one world twice, three of another
    assert pooled.arm("cdcda").differences["direct_ft"]["rouge1"].users == 6
    assert [seed_label(each, pooled.runs) for each in pooled.runs] == [
        "0 (world 7, networks 0)",
        "0 (world 2024, networks 0)",
        "0 (world 2024, networks 1)",
    ]
    assert len(user_gains(pooled, "cdcda", "direct_ft", "rouge1")) == 6
    assert len(shown_gains(pooled, "cdcda", "direct_ft", "rouge1")) == 3


def test_an_arm_of_some_seeds_is_pooled_over_these(make_run):
    first = read_run(make_run("both", users=3, seed=0, methods=("device", "direct_ft", "cdcda")))
    second = read_run(make_run("one", users=3, seed=1, methods=("direct_ft", "cdcda")))
    pooled = summarise([first, second])
    alone = summarise([first]).arm("device").metrics["rouge1"]
    assert pooled.arm("device").metrics["rouge1"].value == alone.value
    assert len(pooled.arm("cdcda").metrics["rouge1"].per_seed) == 2
    against = pooled.arm("cdcda").differences
    assert (against["direct_ft"]["rouge1"].queries, against["device"]["rouge1"].queries) == (60, 30)


def test_a_seed_counts_once(make_run):
    run = read_run(make_run("first", users=2))
    with pytest.raises(RunError, match="seed 0; give each seed once"):
        summarise([run, replace(run, folder=run.folder.with_name("again"))])


def test_repetitions_may_lie_in_other_folders(make_run):
    first = read_run(make_run("first", users=2))
    paths = replace(first.config.paths, cache="elsewhere")
    second = replace(first, config=replace(first.config, seed=1, paths=paths))
    assert summarise([first, second]).arm("device").queries == 40


def test_arm_numbers_for_trackers(make_run):
    found = arm_numbers(read_run(make_run(users=2)), "cdcda")
    assert {"cdcda/rouge1", "cdcda/seconds/adapt", "cdcda/last_loss"} <= set(found)
    assert json.dumps(found, allow_nan=False)


def test_arms_of_several_epsilons_are_no_curve_and_one_epsilon_starts_at_its_own_kind(make_run):
    methods, ratios = ("direct_ft", "direct_ft_dp", "cdcda_dp"), (0.5, 1.0)
    one = BaselinesConfig(dp_epsilons=(8.0,))
    run = read_run(make_run("one", users=3, methods=methods, ratios=ratios, baselines=one))
    (curve,) = ratio_curves(summarise([run]))
    assert [arm.arm.name for arm in curve.arms] == ["direct_ft_dp", "cdcda_dp@0.5", "cdcda_dp@1"]
    two = BaselinesConfig(dp_epsilons=(1.0, 8.0))
    run = read_run(make_run("two", users=3, methods=methods, ratios=ratios, baselines=two))
    results = summarise([run])
    assert ratio_curves(results) == []
    assert as_line(results, results.arm("cdcda_dp@0.5+eps1"))["epsilon"] == 1.0
