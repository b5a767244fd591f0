"""The public route: a SuperLink of our own carries the run out, and nothing of it stays behind."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from sim import exit_status
from sim.run.processes import alive, descendants, title
from storage import jsonlines
from tests.plugins.small_runs import start, wait_for_adaptation, words

ROOT = Path(__file__).resolve().parents[3]
LIMIT_S = 300
ENDING_S = 150  # orphans of Ray look for their parent now and then


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_public_route_goes_from_data_to_report_and_cleans_up(qwen2_folder, tmp_path):
    """With a task that a plugin registers: ServerApp and Ray's client processes load it too."""
    plugin, data = ROOT / "examples" / "longlamp_topic.py", ROOT / "examples" / "records"
    task = (f"plugins=['{plugin}']", "task=longlamp_topic", f"data='{data}'", "users=2")
    more = ("engine=flwr_run", "methods=[direct_ft,cdcda]", "resources.num_cpus=2", *task)
    status, output = ended(start(words(qwen2_folder, tmp_path, *more)))
    assert status == exit_status.OK, output
    assert "direct_ft: adapt" in output
    assert (tmp_path / "runs" / "run" / "report.md").is_file()


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_public_route_resumes_tells_the_truth_and_cleans_up(qwen2_folder, tmp_path):
    more = ("engine=flwr_run", "methods=[direct_ft,cdcda]", "resources.num_cpus=2")
    run = tmp_path / "runs" / "run"

    killed = start(words(qwen2_folder, tmp_path, *more))
    wait_for_adaptation(killed.poll, run / "ledger.jsonl", LIMIT_S)
    started = descendants(killed.pid)
    assert any(b"flwr-simulation" in command for command in map(title, started))
    killed.kill()
    killed.communicate()
    assert still_there(started) == []

    broken = sorted(run.glob("devices/*/history.json"))[0]
    whole = broken.read_text(encoding="utf-8")
    broken.write_text(whole[:20], encoding="utf-8")
    assert resumed(run) == exit_status.PARTIAL
    victims = {row["user"] for row in jsonlines.read(run / "failures.jsonl")}
    assert len(victims) == 1

    broken.write_text(whole, encoding="utf-8")
    assert resumed(run) == exit_status.OK
    answers = jsonlines.read(run / "answers.jsonl")
    assert len({(row["arm"], row["user"]) for row in answers}) == 2 * 4
    assert victims <= {json.loads(whole)["user_id"]}


def resumed(run: Path) -> int:
    """Go on with the run, see that it shows progress and leaves nothing, return how it ended."""
    status, output = ended(start(["resume", f"run={run}"]))
    assert "cdcda: answer" in output
    return status


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for the end, see that nothing is left, return status and output."""
    seen: set[int] = set()
    try:
        while process.poll() is None:
            seen.update(descendants(process.pid))
            time.sleep(0.2)
        output, _ = process.communicate(timeout=LIMIT_S)
    finally:
        process.send_signal(signal.SIGTERM)
    assert seen
    assert still_there(seen) == []
    return process.returncode, output


def still_there(pids) -> list[int]:
    """Which of ``pids`` do not end by themselves."""
    end = time.monotonic() + ENDING_S
    while any(alive(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.2)
    return [pid for pid in pids if alive(pid)]
