"""The list of runs: states, findings, sweeps, and what is no run."""

import json

import pytest

from sim.commands import runs
from sim.report.report import write_report
from storage import jsonlines

pytestmark = pytest.mark.usefixtures("undrawn")


def listed(root):
    return {each.name: each for each in runs.list_runs(root, now=4e9)}


def test_states_and_findings(make_run, capsys):
    done, part, begun = (make_run(name, users=4) for name in ("done", "part", "begun"))
    alone = make_run("alone", users=2, methods=("device",))
    for folder in (done, part, alone):
        write_report([folder])
        (folder / "finished.json").write_text("{}")
    jsonlines.append(part / "failures.jsonl", [{"user": "a"}])
    strange = begun.parent / "strange"
    strange.mkdir()
    (strange / "config.json").write_text('{"of": "another version"}')
    (begun.parent / "no run").mkdir()
    found = listed(begun.parent)
    states = {name: each.state for name, each in found.items()}
    assert states == {
        "alone": "done", "begun": "begun", "done": "done", "part": "part failed",
        "strange": "unreadable",
    }  # fmt: skip
    assert found["done"].found.startswith("cdcda - direct_ft: +0.0")
    assert found["alone"].found.startswith("ROUGE-1 .")
    assert found["begun"].found == ""
    files = [path for path in done.rglob("*") if path.is_file()]
    assert found["done"].num_bytes == sum(path.stat().st_size for path in files) > 50_000
    assert runs.main([f"runs={begun.parent}"]) == 0
    assert "part failed" in capsys.readouterr().out


def test_runs_of_a_sweep_have_its_name_in_front(make_run):
    folder = make_run("sweep/seed0", users=2)
    (folder.parent / "sweep.json").write_text(json.dumps({"runs": ["seed0"]}))
    assert list(listed(folder.parent.parent)) == ["sweep/seed0"]


def test_an_empty_folder_says_how_to_begin(tmp_path, capsys):
    assert runs.main([f"runs={tmp_path / 'none'}"]) == 0
    assert "make one: python -m sim" in capsys.readouterr().out.replace("\n", " ")
