"""A whole run where nothing is as usual: no home, C locale, a dead proxy, a pipe."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from sim import exit_status
from sim.run.flower_processes import free_ports
from tests.plugins.small_runs import ROOT, words

STRAY = r"Traceback|Failed to load|Warning|WARNING|deprecated"  # of libraries, not of ours
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


@pytest.fixture
def bare(tmp_path):
    """Start ``python -m sim`` there: ``bare("answer", ...)``."""
    (port,) = free_ports(1)  # nobody listens there
    dead = {each: f"http://127.0.0.1:{port}" for name in PROXIES for each in (name, name.lower())}
    kept = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
    surroundings = {**kept, **dead, "LANG": "C", "LC_ALL": "C", "OMP_NUM_THREADS": "1"}

    def start(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "sim", *arguments],
            cwd=ROOT,
            env=surroundings,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )

    return start


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_whole_run_ends_well_without_home_locale_network_and_terminal(
    bare, qwen2_folder, tmp_path
):
    more = ("methods=[direct_ft,cdcda]", "resources.num_cpus=2")
    ended = bare(*words(qwen2_folder, tmp_path, *more))
    assert ended.returncode == exit_status.OK, ended.stdout + ended.stderr
    assert "\x1b" not in ended.stdout
    assert not re.search(STRAY, ended.stdout + ended.stderr)
    run = tmp_path / "runs" / "run"
    for name in ("report.md", "report.html", "results.jsonl", "plots/scores.png"):
        assert (run / name).is_file(), name
    assert not (ROOT / "~").exists()  # where no home is known

    user = json.loads((run / "registry.json").read_text(encoding="utf-8"))[0]["user_id"]
    asked = bare("answer", f"run={run}", f"user={user}", "a text about a bridge")
    assert asked.returncode == exit_status.OK, asked.stderr
    assert not re.search(STRAY, asked.stdout + asked.stderr)
    assert asked.stderr == ""
