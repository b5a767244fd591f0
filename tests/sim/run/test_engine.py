"""What a run may use of a machine's GPUs: as many as its resources say, and none with none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from conf.compose import compose
from sim.folders import RunFolder
from sim.run.engine import VISIBLE, _gpus_of, simulate

ROOT = Path(__file__).resolve().parents[3]
SEEN = """
import json, os, warnings
from sim.run.engine import backend_config, set_environment
from conf.compose import compose
set_environment()
import ray
ray.init(**{**backend_config(compose([]).resources)["init_args"], "num_cpus": 3, "num_gpus": 2})
class Device:
    def sees(self):
        return os.environ.get("CUDA_VISIBLE_DEVICES")
gpus = (0, 1, 0.5)
devices = [ray.remote(Device).options(num_cpus=1, num_gpus=each).remote() for each in gpus]
print(json.dumps([ray.get(each.sees.remote()) for each in devices]))
"""


@pytest.mark.slow
def test_a_device_sees_the_gpus_that_it_books_and_no_other():
    done = subprocess.run(
        [sys.executable, "-c", SEEN],
        cwd=ROOT,
        env={**os.environ, VISIBLE: "0,1"},
        capture_output=True,
        text=True,
        check=True,
    )
    nothing, one, half = json.loads(done.stdout)
    assert nothing == ""
    assert {one, half} == {"0", "1"}
    assert "Tip: In future versions" not in done.stderr


@pytest.mark.parametrize(
    ("words", "route"),
    [
        (["resources.backend=inline"], "sim.run.inline.run_inline"),
        ([], "sim.run.engine._run_ray"),
        (["engine=flwr_run"], "sim.run.superlink.run_on_superlink"),
    ],
)
def test_no_route_lets_a_run_on_cpus_see_a_gpu(tmp_path, monkeypatch, words, route):
    seen = []
    monkeypatch.setenv(VISIBLE, "0,1")
    monkeypatch.setattr(route, lambda *_: seen.append(os.environ[VISIBLE]))
    for resources in ("cpu", "gpu"):
        config = compose([f"resources={resources}", *words])
        folder = RunFolder(tmp_path)
        simulate(folder, SimpleNamespace(config=config), None)
    assert seen == ["", "0,1"]
    assert os.environ[VISIBLE] == "0,1"


def test_one_process_hides_gpus_from_a_run_on_cpus_alone(monkeypatch):
    monkeypatch.setenv(VISIBLE, "0,1")
    on_cpus = compose(["resources=cpu"]).resources
    with _gpus_of(on_cpus):
        assert os.environ[VISIBLE] == ""
    assert os.environ[VISIBLE] == "0,1"
    with _gpus_of(compose(["resources=gpu"]).resources):
        assert os.environ[VISIBLE] == "0,1"
    monkeypatch.delenv(VISIBLE)
    with _gpus_of(on_cpus):
        assert os.environ[VISIBLE] == ""
    assert VISIBLE not in os.environ
