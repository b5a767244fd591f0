"""A task that a plugin registers runs from its files to the report, as the example's page says."""

from __future__ import annotations

from pathlib import Path

from sim.cli import main
from storage import jsonlines
from tests.plugins.small_runs import words

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "longlamp_topic.py"


def test_the_example_is_a_run_of_a_task_that_is_none_of_ours(qwen2_folder, tmp_path, registries):
    own = [
        f"plugins=['{EXAMPLE}']",
        "task=longlamp_topic",
        f"data='{ROOT / 'examples' / 'records'}'",
        "users=2",
        "methods=[device,direct_ft,cdcda]",
        "resources.backend=inline",
        "evaluation.bootstrap=50",
    ]
    assert main(words(qwen2_folder, tmp_path, *own)) == 0
    run = tmp_path / "runs" / "run"
    answers = list(jsonlines.read(run / "answers.jsonl"))
    assert {(row["arm"], row["user"]) for row in answers} == {
        (arm, user) for arm in ("device", "direct_ft", "cdcda") for user in ("amara", "bruno")
    }
    assert (run / "report.md").read_text(encoding="utf-8").startswith("# LongLaMP topic writing")
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) <= 60
