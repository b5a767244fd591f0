"""A Ray cluster of two raylets on loopback gives the results of one machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conf.compose import compose
from conf.errors import ConfigError, RunError
from sim import cluster
from sim.processes import alive, descendants
from storage import jsonlines

ROOT = Path(__file__).resolve().parents[2]
RAY = Path(sys.executable).parent / "ray"
LIMIT_S = 280


def test_a_cluster_without_an_address_is_refused(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "local")
    with pytest.raises(RunError, match="RAY_ADDRESS"):
        cluster.address()


def test_the_size_of_a_cluster_is_not_ours_to_say():
    with pytest.raises(ConfigError, match="the cluster's own"):
        compose(["resources=cluster", "resources.num_cpus=4"])


@pytest.fixture
def two_raylets(tmp_path):
    """Start a head and a second node with one CPU each; end both by their process ids."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    environment.pop("RAY_ADDRESS", None)
    common = ["--block", "--num-cpus=1", "--node-ip-address=127.0.0.1"]
    common += ["--object-store-memory=100000000", "--disable-usage-stats"]
    head = ["--head", f"--port={address.rpartition(':')[2]}", "--include-dashboard=false"]
    started = []
    try:
        for words in (head, [f"--address={address}"]):
            with (tmp_path / f"raylet-{len(started)}.log").open("wb") as log:
                started.append(
                    subprocess.Popen(
                        [RAY, "start", *words, *common], env=environment, stdout=log, stderr=log
                    )
                )
            wait_for_port(address)
        yield address
    finally:
        pids = [pid for each in started for pid in (each.pid, *descendants(each.pid))]
        for each in reversed(started):
            each.terminate()
        for each in started:
            each.wait(30)
        end = time.monotonic() + 30
        while any(alive(pid) for pid in pids) and time.monotonic() < end:
            time.sleep(0.2)
        assert not [pid for pid in pids if alive(pid)]


def wait_for_port(address: str) -> None:
    host, _, port = address.rpartition(":")
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError("the head did not come up")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_raylets_give_the_results_of_one_machine(qwen2_folder, tmp_path, two_raylets):
    together = run(qwen2_folder, tmp_path / "cluster", two_raylets, "resources=cluster")
    alone = run(qwen2_folder, tmp_path / "alone", "local", "resources.num_cpus=2")
    assert results(together) == results(alone)
    assert len(results(alone)[0]) == 2 * 4
    assert adapters(together) == adapters(alone)
    assert len(adapters(alone)) == 2 * 4


def run(model: Path, folder: Path, address: str, *more: str) -> Path:
    words = [
        "model=qwen2.5",
        *(f"model.{which}.path={model}" for which in ("cloud", "device", "nli")),
        *(f"model.{which}.dtype=float32" for which in ("cloud", "device")),
        "world=small",
        "users=4",
        "methods=[direct_ft,cdcda]",
        "task.max_new_tokens=4",
        "qlora.base_max_records=32",
        "qlora.epochs=1",
        "qlora.cohort=1",
        "augmenter.k=1",
        "augmenter.sampling.max_new_tokens=4",
        f"paths.cache={folder / 'cache'}",
        f"paths.runs={folder / 'runs'}",
        "name=run",
        *more,
    ]
    result = subprocess.run(
        [sys.executable, "-m", "sim", *words],
        cwd=ROOT,
        env={**os.environ, "RAY_ADDRESS": address, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return folder / "runs" / "run"


def results(run_folder: Path) -> tuple[set[tuple[str, str]], list[object]]:
    rows = sorted(
        jsonlines.read(run_folder / "answers.jsonl"),
        key=lambda row: (row["arm"], row["user"], str(row["query"])),
    )
    answered = {(row["arm"], row["user"]) for row in rows}
    kept = ("arm", "user", "query", "rouge1", "rougeL", "parsed", "tokens")
    return answered, [[row[key] for key in kept] for row in rows]


def adapters(run_folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(run_folder)): path.read_bytes()
        for path in run_folder.glob("devices/*/adapters/*/adapter_model.safetensors")
    }
