"""Score by age of the query: runs that differ in the refresh come together, users stay paired."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conf.schema import DriftConfig
from sim.report.drift import aged_scores, drift_layout, group
from sim.report.pooling import summarise
from sim.report.run_records import read_run
from storage import jsonlines

ROOT = Path(__file__).resolve().parents[3]
LIMIT_S = 280
METHODS = ("device", "direct_ft")
YEARS = 2
QUERIES = 10
USERS = 6


@pytest.fixture
def drifting(make_run):
    """Two runs of the same users: queries 0 to 4 are of the first year, 5 to 9 of the second."""

    def make(**missing):
        folders = []
        for refresh in (0, 1):
            drift = DriftConfig(cut="2012-01-01", years=YEARS, refresh=refresh)
            folder = make_run(
                f"drift.refresh{refresh}", users=USERS, methods=METHODS, layout="drift",
                drift=drift, missing=missing.get(f"refresh{refresh}"),
            )  # fmt: skip
            manifest = json.loads((folder / "manifest.json").read_text())
            manifest["data"]["ages"] = {
                f"{user}-{query}": query // 5
                for user in range(USERS)
                for query in range(QUERIES)
                if query // 5 >= refresh
            }
            (folder / "manifest.json").write_text(json.dumps(manifest))
            folders.append(folder)
        return folders

    return make


def results_of(folders):
    return [summarise([read_run(folder)]) for folder in folders]


def by_place(folders):
    (drift,) = group(results_of(folders))
    return {(score.method, score.age): score for score in aged_scores(drift)}


def mean(folder, arm, queries):
    rows = [row for row in jsonlines.read(folder / "answers.jsonl") if row["arm"] == arm]
    found = [row["rouge1"] for row in rows if int(row["query"].partition("-")[2]) in queries]
    return sum(found) / len(found)


def test_each_age_is_scored_by_the_adapter_of_the_cut_and_by_that_of_its_year(drifting):
    folders = drifting()
    for row in (rows := list(jsonlines.read(folders[1] / "answers.jsonl"))):
        row["rouge1"] = min(1.0, row["rouge1"] + 0.1)  # the refresh helps
    (folders[1] / "answers.jsonl").unlink()
    jsonlines.append(folders[1] / "answers.jsonl", rows)
    found = by_place(folders)
    assert list(found) == [(method, age) for method in METHODS for age in range(YEARS)]
    late = found["direct_ft", 1]
    assert late.once.value == pytest.approx(mean(folders[0], "direct_ft", range(5, 10)))
    assert late.refreshed.value == pytest.approx(mean(folders[1], "direct_ft", range(5, 10)))
    assert late.gain.value == pytest.approx(late.refreshed.value - late.once.value)
    assert (late.users, late.queries, late.gain.users) == (USERS, 5 * USERS, USERS)
    first = found["direct_ft", 0]
    assert late.change.value == pytest.approx(late.once.value - first.once.value)
    assert (first.refreshed, first.gain, first.change) == (None, None, None)


def test_a_method_that_trains_no_adapter_is_not_refreshed(drifting):
    found = by_place(drifting())
    assert found["device", 1].once is not None
    assert found["device", 1].refreshed is None


def test_a_user_who_failed_in_one_run_is_left_out_of_the_pairs(drifting):
    found = by_place(drifting(refresh1={"direct_ft": ("user-002",)}))
    assert found["direct_ft", 1].users == USERS
    assert found["direct_ft", 1].gain.users == USERS - 1


def test_other_settings_and_single_runs_stand_apart(drifting, make_run):
    folders = drifting()
    other = make_run("other", users=USERS, methods=METHODS, layout="drift", seed=0, queries=3)
    assert [sorted(drift.by_refresh) for drift in group(results_of([*folders, other]))] == [
        [0, 1],
        [0],
    ]
    (alone,) = group(results_of(folders[1:]))
    (score,) = aged_scores(alone)
    assert (score.age, score.once, score.users) == (1, None, USERS)
    assert score.refreshed is not None


def test_the_layout_has_a_row_per_age_and_a_dashed_line_from_the_same_start(drifting):
    layout = drift_layout(results_of(drifting()))
    (table,) = layout.tables.values()
    assert [row[2].text for row in table.rows] == ["0 to 1", "1 to 2"] * 2
    (panel,) = layout.panels
    labels = [(series.label or series.method, series.dashed) for series in panel.series]
    assert labels == [
        ("device", False),
        ("direct_ft", False),
        ("direct_ft, refreshed yearly", True),
    ]
    once, refreshed = panel.series[1:]
    assert once.points[0] == refreshed.points[0]


@pytest.mark.slow
@pytest.mark.long
def test_one_command_trains_once_and_anew_and_prints_both_by_age(qwen2_folder, tmp_path):
    words = [
        "experiment=drift",
        "drift.refresh=0,1",
        "drift.years=2",
        "world.history_min=48",
        "world.history_max=48",
        "world.population=8",
        "model=qwen2.5",
        *(f"model.{which}.path={qwen2_folder}" for which in ("cloud", "device", "nli")),
        *(f"model.{which}.dtype=float32" for which in ("cloud", "device")),
        "methods=[device,direct_ft]",
        "users=3",
        "evaluation.bootstrap=50",
        "qlora.compute_dtype=float32",
        "qlora.epochs=1",
        "qlora.base_max_records=16",
        "task.max_new_tokens=4",
        "resources.backend=inline",
        f"paths.cache={tmp_path / 'cache'}",
        f"paths.runs={tmp_path / 'runs'}",
        "name=drift",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "sim", "-m", *words],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "refreshed minus once" in " ".join(done.stdout.split())
    folder = tmp_path / "runs" / "drift"
    once, anew = (read_run(path.parent) for path in sorted(folder.glob("*/config.json")))
    assert len(once.answers["direct_ft"]) == 3 * 24
    assert len(anew.answers["direct_ft"]) == 3 * 12
    records = {name: {line.records for line in run.adaptations.values()} for name, run in
               (("once", once), ("anew", anew))}  # fmt: skip
    assert records == {"once": {24}, "anew": {36}}
    assert len(list((tmp_path / "cache" / "bases").iterdir())) == 1  # one M_base for both
    text = (folder / "report.md").read_text()
    assert "## Drift: score by age of the query" in text
    assert "report_curves.png" in text
    rows = (folder / "report_tables" / "drift.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * 2
