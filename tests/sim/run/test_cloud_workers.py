"""Workers write and score what one process would, wherever they sit and whoever of them dies."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import torch

from conf.compose import compose
from conf.errors import ConfigError, RunError
from sim.run.cloud_workers import Placement, Workers, cloud_here, cloud_of, seats
from sim.run.processes import alive
from strategy.cloud_models import CloudGenerator
from tests.faults.runs import write_models
from tests.plugins.small_runs import words

PROMPTS = [f"Write {'again and ' * (number % 5)}about {number % 9}" for number in range(22)]
SEEDS = list(range(100, 122))
PAIRS = [(f"a {'long ' * (number % 4)}text {number}", f"text {number}") for number in range(13)]
MULTI = ["resources=multi_gpu", "resources.num_gpus=2", "resources.client_gpus=0.5"]


def on_ray(test):
    """Ray starts in this process and leaves files open, which is not for us to mend."""
    ignored = ("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
    test = pytest.mark.filterwarnings(*ignored)(test)
    return pytest.mark.slow(pytest.mark.long(test))


def node(name: str, cpus: int = 1, gpus: int = 0, up: bool = True) -> dict[str, object]:
    return {"NodeID": name, "Alive": up, "Resources": {"CPU": cpus, "GPU": gpus}}


def test_workers_sit_on_all_gpus_in_turn():
    resources = compose([*MULTI, "resources.cloud_gpus=0.5"]).resources
    nodes = [node("a", gpus=1), node("gone", gpus=4, up=False), node("b", gpus=1)]
    assert seats(resources, nodes) == [Placement("a", 0), Placement("b", 0)] * 2


def test_workers_sit_on_all_nodes_with_cpus_in_turn():
    resources = compose(["resources.cloud_workers=3"]).resources
    nodes = [node("head", cpus=0), node("a"), node("b")]
    assert [seat.node for seat in seats(resources, nodes)] == ["a", "b", "a"]


def test_more_workers_than_a_cluster_has_gpus_are_refused():
    words = ["resources=cluster", "resources.cloud_device=cuda", "resources.cloud_workers=3"]
    resources = compose(words).resources
    assert len(seats(resources, [node("a", gpus=2), node("b", gpus=1)])) == 3
    with pytest.raises(RunError, match=r"expected 1 to 2 on 2 GPUs .* got 3"):
        seats(resources, [node("a", gpus=2), node("b")])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["resources.cloud_workers=per_gpu"], "needs resources.cloud_device=cuda"),
        ([*MULTI, "resources.cloud_device='cuda:1'"], "must be cpu or cuda"),
        ([*MULTI, "resources.cloud_workers=3"], "does not fit on resources.num_gpus=2"),
        ([*MULTI, "resources.num_gpus=0", "resources.client_gpus=0"], "does not fit"),
    ],
)
def test_what_cannot_be_is_refused_at_composition(words, message):
    with pytest.raises(ConfigError, match=message):
        compose(words)


def test_one_worker_is_this_process():
    assert isinstance(cloud_of(compose([])).writer, CloudGenerator)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    models = write_models(tmp_path_factory.mktemp("models"))
    return compose(
        [
            "model=qwen2.5",
            *(f"model.{which}.path='{models / which}'" for which in ("cloud", "device", "nli")),
            "model.cloud.dtype=float32",
            "model.nli.batch_size=3",
            "augmenter.batch_size=4",
            "augmenter.sampling.max_new_tokens=12",
            "resources.cloud_workers=3",
        ]
    )


@pytest.fixture(scope="module")
def alone(config):
    """What one process writes and scores, on one thread as each of the workers."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    cloud = cloud_here(config)
    try:
        return cloud.writer.write(PROMPTS, SEEDS, lambda _: None), cloud.judge.both_ways(PAIRS)
    finally:
        torch.set_num_threads(threads)


@pytest.fixture
def spread(config, ray_up):
    """The same cloud on workers."""
    cloud = cloud_of(config)
    yield cloud
    cloud.end()


@on_ray
def test_workers_write_and_score_what_one_process_does(alone, spread):
    steps: list[int] = []
    assert spread.writer.write(PROMPTS, SEEDS, steps.append) == alone[0]
    assert spread.judge.both_ways(PAIRS) == alone[1]
    assert sorted(steps) == [2, 4, 4, 4, 4, 4]
    assert len({reply.text for reply in alone[0]}) > 1


@on_ray
def test_a_worker_that_is_killed_costs_no_text(alone, spread):
    killed: list[int] = []

    def kill_one(_done: int) -> None:
        if not killed:
            killed.append(min(workers_of(spread).processes()))
            os.kill(killed[0], signal.SIGKILL)

    assert spread.writer.write(PROMPTS, SEEDS, kill_one) == alone[0]
    left = workers_of(spread).processes()
    assert spread.judge.both_ways(PAIRS) == alone[1]
    assert len(left) == 3
    assert killed[0] not in left
    spread.end()
    assert not [pid for pid in left if alive(pid)]


@on_ray
def test_a_batch_that_kills_every_worker_ends_the_run(spread):
    with pytest.raises(RunError, match="2 workers died at the same batch"):
        workers_of(spread).work(
            lambda worker, _: worker.write.remote("deadly", Deadly(), (), ()), [0]
        )


class Deadly:
    """Takes its process with it."""

    def write(self, *_):
        os.kill(os.getpid(), signal.SIGKILL)


@on_ray
def test_each_worker_sees_its_gpu_while_devices_book_all_of_them(ray_up):
    workers = Workers(compose(MULTI).resources)
    device = ray_up.remote(num_cpus=2, num_gpus=2)(Device).remote()
    try:
        assert ray_up.get(device.gpus.remote()) == [0, 1]
        workers.work(lambda worker, _: worker.where.remote(), [0])
        assert sorted(workers.processes().values()) == ["0", "1"]
    finally:
        workers.end()
        ray_up.kill(device)


class Device:
    """Books what Flower's device processes do."""

    def gpus(self):
        import ray

        return sorted(int(gpu) for gpu in ray.get_gpu_ids())


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_run_without_ray_brings_it_for_its_workers(qwen2_folder, tmp_path):
    here, spread = (
        inline_run(qwen2_folder, tmp_path / count, f"resources.cloud_workers={count}")
        for count in ("1", "2")
    )
    assert written(spread) == written(here)
    assert len(written(here)) > 4


def inline_run(model: Path, folder: Path, *more: str) -> Path:
    arguments = words(model, folder, "resources.backend=inline", "methods=[cdcda]", *more)
    done = subprocess.run(
        [sys.executable, "-m", "sim", *arguments],
        cwd=Path(__file__).resolve().parents[3],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "cache" / "augmentation.sqlite"


def written(cache: Path) -> list[tuple[str, ...]]:
    with closing(sqlite3.connect(cache)) as connection:
        return sorted(connection.execute("SELECT key, value FROM entries"))


def workers_of(cloud) -> Workers:
    return cloud.end.__self__
