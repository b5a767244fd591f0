"""The example of a ServerApp of one's own, with the product's ClientApp."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from flwr.app import Context, RecordDict

from clients.app import app as client_app
from examples.own_app.server_app import make_app
from sim.run.inline import InlineGrid
from storage import jsonlines
from tests.plugins.small_runs import words

ROOT = Path(__file__).resolve().parents[2]
ARMS = {"direct_ft", "cdcda@0.5", "cdcda@1"}
RUN_ID = 1


def small(model: Path, cache: Path) -> list[str]:
    """A random network of a hundred kilobytes in the place of the world's own models."""
    return [*words(model, cache), "users=2", "qlora.cohort=1"]


def rows(cache: Path, name: str) -> list[dict]:
    (path,) = cache.glob(f"flwr-runs/*/{name}.jsonl")
    return list(jsonlines.read(path))


def check(cache: Path) -> None:
    users = {row["user"] for row in rows(cache, "answers")}
    assert len(users) == 2
    assert {(row["arm"], row["user"]) for row in rows(cache, "answers")} == {
        (arm, user) for arm in ARMS for user in users
    }
    kept: Counter[str] = Counter()
    for row in rows(cache, "adaptations"):
        kept[row["arm"]] += row["synthetic"]
    assert kept["direct_ft"] == 0 < kept["cdcda@0.5"] <= kept["cdcda@1"]


def test_the_example_adapts_and_answers_in_every_arm(qwen2_folder, tmp_path):
    run_config = {"cache": str(tmp_path)}
    context = Context(RUN_ID, 0, {}, RecordDict(), run_config)
    server_app = make_app(small(qwen2_folder, tmp_path))
    server_app(grid=InlineGrid(client_app, 2, run_config), context=context)
    check(tmp_path)


@pytest.mark.slow
def test_the_example_runs_through_flowers_simulation(qwen2_folder, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "examples.own_app", *small(qwen2_folder, tmp_path)],
        cwd=ROOT,
        env={**os.environ, "CDCDA_CACHE": str(tmp_path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    check(tmp_path)


def test_the_server_app_fits_on_a_page():
    lines = (ROOT / "examples/own_app/server_app.py").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 60
