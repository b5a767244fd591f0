"""The two fault programs as tests, outside `make test` because they take minutes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(3600)]


def run(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_fault_at_once_loses_nothing():
    printed = run("tests.faults.chaos")
    assert "\n0 lost, 20 users" in printed


def test_a_driver_that_is_killed_anywhere_is_gone_on_with_to_equal_results():
    assert "5 of 5 resumed to equal results" in run("tests.faults.crash", "--points", "5")
