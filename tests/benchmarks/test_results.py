"""Groups of docs/results: what they run can be run, and a finished run is not run again."""

from __future__ import annotations

import pytest

from benchmarks import results
from conf.compose import compose
from conf.errors import ConfigError
from lamp.world import write_world
from tests.plugins import small_runs

GROUPS = results.read_groups(results.GROUPS)
SLOTS = {"data": "d", "cloud": "c.gguf", "device": "s.gguf", "nli": "n"}


def given(group: results.Group) -> dict[str, str]:
    return {
        slot: value for slot, value in SLOTS.items() if f"={{{slot}}}" in " ".join(group.runs[0])
    }


@pytest.mark.parametrize("group", GROUPS.values(), ids=list(GROUPS))
def test_every_run_of_a_group_is_a_configuration_without_a_sweep_left(group):
    runs = results.filled(group, given(group))
    assert len({tuple(run) for run in runs}) == len(runs)
    for words in runs:
        config = compose(words)
        swept = {entry.partition("=")[0] for entry in config.sweep}
        assert swept <= {word.partition("=")[0] for word in words}


def test_slots_are_filled_with_what_the_command_line_gives():
    (first, *_) = results.filled(GROUPS["headlines"], SLOTS)
    assert {"data=d", "model.cloud.path=c.gguf", "model.nli.path=n"} <= {*first}


@pytest.mark.parametrize("words", [{}, {**SLOTS, "more": "x"}, {"data": "d"}])
def test_missing_and_unknown_slots_are_refused(words):
    with pytest.raises(ConfigError, match="cloud=<path> data=<path> device=<path> nli=<path>"):
        results.filled(GROUPS["headlines"], words)


def test_unknown_group_lists_the_groups(capsys):
    assert results.main(["headline"]) == 2
    shown = capsys.readouterr()
    assert "table3" in shown.out
    assert "headlines" in shown.err


@pytest.mark.long
def test_the_papers_protocol_runs_on_official_files(
    tmp_path, qwen2_folder, bert_folder, monkeypatch, capfd
):
    for task in ("lamp_4", "lamp_7"):
        write_world(
            tmp_path / "lamp", task, compose([f"task={task}", "world=small", "model=tiny"]).world
        )
    toy = [
        word
        for word in small_runs.words(qwen2_folder, tmp_path)
        if word.partition("=")[0] not in ("name", "world")
    ]
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    line = ["paper_table3", f"data={tmp_path / 'lamp'}"]
    more = ["--", *toy, "resources=cpu", "ratios=[1.0]", f"evaluation.bertscore={bert_folder}"]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert results.main([*line, "--dry-run", *more]) == 0
    assert "What would run" in capfd.readouterr().out
    for _ in range(2):  # the second time there is nothing left to run
        assert results.main([*line, *more]) == 0
    text = (tmp_path / "results" / "paper_table3" / "report.md").read_text(encoding="utf-8")
    assert "LaMP-7" in text
    assert "BERT" in text
    assert "cdcda_random" in text
