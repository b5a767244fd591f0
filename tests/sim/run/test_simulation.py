"""The real thing on Ray: from data to report, and a killed device does not end it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from storage import jsonlines
from tests.plugins import small_runs
from tests.plugins.small_runs import wait_for_adaptation, words

ROOT = Path(__file__).resolve().parents[3]
ENDING_S = 30
LIMIT_S = 240

pytestmark = pytest.mark.slow


def as_at_a_keyboard() -> None:
    """Take Ctrl-C, also where the tests run in the background, which ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(arguments: list[str]) -> subprocess.Popen[str]:
    return small_runs.start(arguments, start_new_session=True, preexec_fn=as_at_a_keyboard)


@pytest.fixture(scope="module")
def finished(qwen2_folder, tmp_path_factory) -> tuple[Path, str]:
    """A run that came to its end, and what it printed."""
    folder = tmp_path_factory.mktemp("finished")
    process = start(words(qwen2_folder, folder))
    output, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, output
    return folder / "runs" / "run", output


def test_a_run_goes_from_data_to_report(finished):
    run, output = finished
    assert "ROUGE-1" in output
    assert str(run) in output.replace("\n", "")
    arms = {line["arm"] for line in jsonlines.read(run / "results.jsonl")}
    assert arms == {"device", "direct_ft", "direct_ft_matched", "cdcda"}
    assert (run / "report.md").read_text(encoding="utf-8").startswith("# LaMP-4")
    assert sorted(path.name for path in (run / "plots").glob("*.png"))
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["packages"]["flwr"] == "1.41.0"
    assert manifest["prompt_date"] == "2024-07-26"


def test_a_killed_device_process_costs_nobody_a_result(qwen2_folder, tmp_path):
    process = start(words(qwen2_folder, tmp_path, "methods=[direct_ft,cdcda]"))
    ledger = tmp_path / "runs" / "run" / "ledger.jsonl"
    try:
        wait_for_adaptation(process.poll, ledger, LIMIT_S)
        os.kill(device_process(process.pid), signal.SIGKILL)
        output, _ = process.communicate(timeout=LIMIT_S)
    finally:
        process.kill()
    assert process.returncode == 0, output
    answered = {
        (line["arm"], line["user"]) for line in jsonlines.read(ledger.with_name("answers.jsonl"))
    }
    assert len(answered) == 2 * 4


def test_ctrl_c_ends_the_run_and_everything_it_started(qwen2_folder, tmp_path):
    process = start(words(qwen2_folder, tmp_path, "users=12", "methods=[direct_ft,cdcda]"))
    try:
        wait_for_adaptation(process.poll, tmp_path / "runs" / "run" / "ledger.jsonl", LIMIT_S)
        started = descendants(process.pid)
        os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=LIMIT_S)
    finally:
        process.kill()
    assert process.returncode == 130
    assert output.endswith("interrupted\n")
    assert "Traceback" not in output
    end = time.monotonic() + ENDING_S
    while (left := [pid for pid in started if is_rays(pid)]) and time.monotonic() < end:
        time.sleep(0.2)
    assert left == []


def is_rays(pid: int) -> bool:
    """Whether a process of Ray's still has this pid."""
    try:
        return b"ray::" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def device_process(driver: int) -> int:
    """The pid of one Ray actor below ``driver``."""
    for pid in descendants(driver):
        title = Path(f"/proc/{pid}/cmdline").read_bytes()
        if b"ClientAppActor" in title:
            return pid
    raise AssertionError("no device process")


def descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    found = [int(child) for child in children]
    return found + [deeper for child in found for deeper in descendants(child)]


def test_diagnose_measures_every_adapter_of_a_run(finished):
    run, _ = finished
    for command in ("diagnose", "report"):
        made = subprocess.run(
            [sys.executable, "-m", "sim", command, f"run={run}"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert made.returncode == 0, made.stderr
    lines = list(jsonlines.read(run / "loss_gaps.jsonl"))
    assert {line["arm"] for line in lines} == {"direct_ft", "direct_ft_matched", "cdcda"}
    assert len(lines) == 12
    assert all(line["own"] > 0 and line["held_out"] > 0 for line in lines)
    assert "Loss on own records and on queries" in (run / "report.md").read_text(encoding="utf-8")
