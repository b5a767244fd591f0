"""Several seeds and tasks in one document."""

from __future__ import annotations

import re

import pytest

from benchmarks import results
from conf.errors import RunError
from sim.commands import report as report_command
from storage import jsonlines


def make_runs(make_run, tasks: tuple[str, ...], seeds: range) -> str:
    folders = [
        make_run(f"{task}-{seed}", task=task, users=4, seed=seed)
        for task in tasks
        for seed in seeds
    ]
    return f"runs=[{','.join(map(str, folders))}]"


def test_tasks_and_seeds_make_one_document(make_run, tmp_path):
    out = tmp_path / "docs" / "results.md"
    words = make_runs(make_run, ("lamp_2", "lamp_3"), range(2))
    assert report_command.main([words, f"out={out}"]) == 0
    text = out.read_text()
    assert text.startswith("# Results on 2 tasks, miniature world\n")
    assert "seeds 0, 1" in text
    assert re.findall(r"^## (LaMP-\d)", text, re.MULTILINE) == ["LaMP-2", "LaMP-3"]
    assert "| Method | LaMP-2 Accuracy ↑ | LaMP-3 MAE ↓ |" in text
    assert "cdcda minus direct_ft" in text
    assert re.search(r"\d\] ±0\.\d{3}", text)
    assert not re.search(r"\b(nan|None|inf|Undefined)\b", text)
    assert str(tmp_path) not in text
    for picture in re.findall(r"\]\(([^)]+\.png)\)", text):
        assert (out.parent / picture).stat().st_size > 10_000
    lines = list(jsonlines.read(out.with_suffix(".jsonl")))  # every number beside the document
    assert [line["task"] for line in lines] == ["lamp_2"] * 4 + ["lamp_3"] * 4
    assert lines[0]["seeds"] == [0, 1]
    assert len(lines[0]["metrics"]["f1"]["per_seed"]) == 2
    assert lines[-1]["differences"]["device"]["mae"]["sd_over_seeds"] > 0


def test_no_run_is_refused(tmp_path):
    with pytest.raises(RunError, match="expected at least one run folder"):
        report_command.main(["runs=[]", f"out={tmp_path / 'x.md'}"])


def test_finished_runs_of_a_group_are_only_reported(make_run, tmp_path, monkeypatch):
    folder = make_run(users=3)
    monkeypatch.chdir(tmp_path)
    (folder / "finished.json").write_text("{}", encoding="utf-8")
    group = results.Group("again", "", ((),))
    (tmp_path / "runs").mkdir(exist_ok=True)
    (tmp_path / "runs" / "again-0").symlink_to(folder)
    monkeypatch.setattr(results, "read_groups", lambda _path: {"again": group})
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    assert results.main(["again"]) == 0
    assert "cdcda" in (tmp_path / "results" / "again" / "report.md").read_text(encoding="utf-8")
