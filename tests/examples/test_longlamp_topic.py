"""A task that a plugin registers runs from its files to the report, as the example's page says."""

from __future__ import annotations

from pathlib import Path

from sim.cli import main
from storage import jsonlines
from tests.plugins.small_runs import words

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "longlamp_topic.py"


def cut_short(run: Path) -> None:
    """Leave the run as if it had been ended before the last answer."""
    (run / "finished.json").unlink()
    lines = (run / "answers.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (run / "answers.jsonl").write_text("".join(lines[:-1]), encoding="utf-8")


def test_a_task_that_is_none_of_ours_runs_and_resumes_from_elsewhere(
    qwen2_folder, tmp_path, monkeypatch, forget_plugins, registries
):
    own = [
        "plugins=[examples/longlamp_topic.py]",
        "task=longlamp_topic",
        "data=examples/records",
        "users=2",
        "methods=[device,direct_ft,cdcda]",
        "resources.backend=inline",
        "evaluation.bootstrap=50",
    ]
    monkeypatch.chdir(ROOT)
    assert main(words(qwen2_folder, tmp_path, *own)) == 0
    run = tmp_path / "runs" / "run"
    cut_short(run)
    forget_plugins()  # as in a new process
    monkeypatch.chdir(tmp_path)
    assert main(["resume", f"run={run}"]) == 0
    answers = list(jsonlines.read(run / "answers.jsonl"))
    assert {(row["arm"], row["user"]) for row in answers} == {
        (arm, user) for arm in ("device", "direct_ft", "cdcda") for user in ("amara", "bruno")
    }
    assert (run / "report.md").read_text(encoding="utf-8").startswith("# LongLaMP topic writing")
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) <= 60
