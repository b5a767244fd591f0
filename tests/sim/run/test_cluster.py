"""A Ray cluster of two raylets on loopback gives the results of one machine, or loses one."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from conf.compose import compose
from conf.errors import ConfigError, RunError
from sim.run import cluster
from sim.run.processes import alive, descendants, title
from storage import jsonlines
from tests.plugins.small_runs import wait_for_adaptation, words

ROOT = Path(__file__).resolve().parents[3]
RAY = Path(sys.executable).parent / "ray"
LIMIT_S = 600
WORDS = ("methods=[direct_ft,cdcda]", "qlora.cohort=1")


def test_a_cluster_without_an_address_is_refused(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "local")
    with pytest.raises(RunError, match="RAY_ADDRESS"):
        cluster.address()


def test_the_size_of_a_cluster_is_not_ours_to_say():
    with pytest.raises(ConfigError, match="the cluster's own"):
        compose(["resources=cluster", "resources.num_cpus=4"])


@dataclass(frozen=True)
class Raylets:
    """A head and a second node."""

    address: str
    head: subprocess.Popen[bytes]
    second: subprocess.Popen[bytes]

    def lose_the_second(self) -> None:
        """End everything on the second node at once, as when its host loses power."""
        for pid in (self.second.pid, *descendants(self.second.pid)):
            os.kill(pid, signal.SIGKILL)


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
    sockets = tempfile.mkdtemp(prefix="ray")  # short: a socket's path may have 107 characters
    head = ["--head", f"--port={address.rpartition(':')[2]}", "--include-dashboard=false"]
    head += [f"--temp-dir={sockets}"]
    started = []
    pids: set[int] = set()
    try:
        for words in (head, [f"--address={address}"]):
            with (tmp_path / f"raylet-{len(started)}.log").open("wb") as log:
                started.append(
                    subprocess.Popen(
                        [RAY, "start", *words, *common], env=environment, stdout=log, stderr=log
                    )
                )
            wait_for_port(address)
        wait_for_raylet(started[1])
        pids = {pid for each in started for pid in (each.pid, *descendants(each.pid))}
        yield Raylets(address, *started)
    finally:
        pids.update(pid for each in started for pid in (each.pid, *descendants(each.pid)))
        for each in reversed(started):
            each.terminate()
        for each in started:
            each.wait(30)
        end = time.monotonic() + 30
        while any(alive(pid) for pid in pids) and time.monotonic() < end:
            time.sleep(0.2)
        shutil.rmtree(sockets, ignore_errors=True)
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


def wait_for_raylet(node: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if any(b"raylet/raylet" in title(pid) for pid in descendants(node.pid)):
            time.sleep(3)  # it tells the head of itself
            return
        time.sleep(0.2)
    raise AssertionError("the second node did not come up")


@pytest.fixture(scope="module")
def alone(qwen2_folder, tmp_path_factory):
    """The same run on one machine with as many CPUs."""
    folder = tmp_path_factory.mktemp("alone")
    return run(qwen2_folder, folder, "local", "resources.num_cpus=2")


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(1500)
def test_two_raylets_give_the_results_of_one_machine(qwen2_folder, tmp_path, two_raylets, alone):
    together = run(qwen2_folder, tmp_path, two_raylets.address, "resources=cluster")
    assert results(together) == results(alone)
    assert len(results(alone)[0]) == 2 * 4
    assert adapters(together) == adapters(alone)
    assert len(adapters(alone)) == 2 * 4


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(1500)
def test_a_node_that_is_lost_in_mid_run_costs_nobody_a_result(
    qwen2_folder, tmp_path, two_raylets, alone
):
    process = start(qwen2_folder, tmp_path, two_raylets.address, "resources=cluster")
    run_folder = tmp_path / "runs" / "run"
    try:
        wait_for_adaptation(process.poll, run_folder / "ledger.jsonl", LIMIT_S)
        two_raylets.lose_the_second()
        output, _ = process.communicate(timeout=LIMIT_S)
    finally:
        process.kill()
    assert process.returncode == 0, output
    assert results(run_folder) == results(alone)
    assert adapters(run_folder) == adapters(alone)


def start(model: Path, folder: Path, address: str, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "sim", *words(model, folder, *WORDS, *more)],
        cwd=ROOT,
        env={**os.environ, "RAY_ADDRESS": address, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(model: Path, folder: Path, address: str, *more: str) -> Path:
    process = start(model, folder, address, *more)
    try:
        output, _ = process.communicate(timeout=LIMIT_S)
    finally:
        process.kill()
    assert process.returncode == 0, output
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
