"""The cloud's models on several Ray workers, one copy of a model each: the texts of one process.

The driver makes the batches that a single process would make and hands them out whole, so how many
workers there are, and who gets which batch, changes no text and no score (equal thread counts
given, to the last bit). A worker that dies is replaced, and its batch is done again.

The workers come up with the first cache miss and end before any device adapts: clouds and devices
have the GPUs in turn. Flower's device processes book all of Ray's GPUs from the start although they
hold nothing yet, so the workers book none: each is told its node and its GPU.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from conf.errors import RunError
from conf.schema import Config, ResourcesConfig
from sim.run import cluster
from sim.run.processes import alive
from strategy.augmentation import Reply
from strategy.cloud_models import Cloud, CloudGenerator, configured_cloud
from strategy.judges import CloudNliScorer, scorer_of

VISIBLE = "CUDA_VISIBLE_DEVICES"
ENDING_S = 30.0
POLL_S = 0.1

T = TypeVar("T")
Texts = tuple[str, str]


def cloud_of(config: Config) -> Cloud:
    """The cloud models of a configuration, in this process or on workers; nothing is loaded yet."""
    here = cloud_here(config)
    if config.resources.cloud_workers == 1:
        return here
    workers = Workers(config.resources)
    writers = [
        RemoteGenerator(each, workers) if isinstance(each, CloudGenerator) else each
        for each in (here.writer, *here.further)
    ]
    judge = SpreadJudge(judge_here(config), workers)
    return Cloud(writers[0], judge, tuple(writers[1:]), workers.end)


def cloud_here(config: Config) -> Cloud:
    """The cloud models of a configuration, in this process; nothing is loaded yet."""
    device = config.resources.cloud_device
    return configured_cloud(config.model, config.augmenter, config.filters, device)


def judge_here(config: Config) -> CloudNliScorer:
    """What judges semantic consistency, in this process; nothing is loaded yet."""
    return scorer_of(config.filters.judge, config.model.nli, config.resources.cloud_device)


class RemoteGenerator:
    """A :class:`CloudGenerator` whose batches are written by workers."""

    def __init__(self, model: CloudGenerator, workers: Workers) -> None:
        """Spread ``model``, which stays unloaded here."""
        self._model, self._workers = model, workers

    @property
    def identity(self) -> str:
        """What names the model in cache keys."""
        return self._model.identity

    def write(
        self, prompts: Sequence[str], seeds: Sequence[int], on_done: Callable[[int], None]
    ) -> list[Reply]:
        """Answer each prompt under its own seed."""
        batches = self._model.batches(prompts)
        jobs = [([prompts[i] for i in batch], [seeds[i] for i in batch]) for batch in batches]
        written = self._workers.work(
            lambda worker, job: worker.write.remote(self.identity, self._model, *job),
            jobs,
            lambda index: on_done(len(batches[index])),
        )
        return _in_order(batches, written)


class SpreadJudge:
    """A :class:`CloudNliScorer` whose batches are scored by workers."""

    def __init__(self, model: CloudNliScorer, workers: Workers) -> None:
        """Spread ``model``, which stays unloaded here."""
        self._model, self._workers = model, workers

    @property
    def identity(self) -> str:
        """What names the model in cache keys."""
        return self._model.identity

    def both_ways(self, pairs: Sequence[Texts]) -> list[tuple[float, float]]:
        """Scores (x against x', x' against x) of each pair of texts."""
        questions = self._model.questions(pairs)
        batches = self._model.batches(questions)
        scored = self._workers.work(
            lambda worker, job: worker.score.remote(self.identity, self._model, job),
            [[questions[i] for i in batch] for batch in batches],
        )
        return self._model.answers(_in_order(batches, scored))

    def cut(self, pairs: Sequence[Texts]) -> int:
        """How many of the pairs are judged by a part of their text; no network is needed."""
        return self._model.cut(pairs)


class CloudWorker:
    """What runs in a worker: one model at a time, the one that was asked last."""

    def __init__(self, gpu: int | None, threads: int) -> None:
        """See one GPU of this node only, or none."""
        if gpu is not None:
            visible = os.environ.get(VISIBLE)
            os.environ[VISIBLE] = visible.split(",")[gpu] if visible else str(gpu)
        import torch  # after the GPU was chosen

        torch.set_num_threads(threads)
        self._name, self._model = "", None

    def where(self) -> tuple[str, int, str]:
        """Node, process id and visible GPUs."""
        import ray

        node = ray.get_runtime_context().get_node_id()
        return node, os.getpid(), os.environ.get(VISIBLE, "")

    def write(
        self, name: str, model: CloudGenerator, prompts: Sequence[str], seeds: Sequence[int]
    ) -> list[Reply]:
        """Answer one batch of prompts with the model called ``name``."""
        writer: CloudGenerator = self._holding(name, model)
        return writer.write(prompts, seeds, lambda _: None)

    def score(self, name: str, model: CloudNliScorer, questions: Sequence[Texts]) -> list[float]:
        """Score one batch of pairs with the model called ``name``."""
        judge: CloudNliScorer = self._holding(name, model)
        return judge.score(questions)

    def _holding(self, name: str, model: Any) -> Any:
        if self._name != name:
            if self._model is not None:
                self._model.release()
            self._name, self._model = name, model
        return self._model


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a worker is put.

    Attributes:
        node: Ray's id of the node.
        gpu: Which of the node's GPUs it has; None for a worker on CPUs, which may move.
    """

    node: str
    gpu: int | None


@dataclass(frozen=True, slots=True)
class _Worker:
    """A worker at work or at rest."""

    seat: Placement
    actor: Any
    where: Any  # the reply that tells its process id


class Workers:
    """The workers of one run: started with the first batch, replaced when they die."""

    def __init__(self, resources: ResourcesConfig) -> None:
        """Remember how many; nothing is started."""
        self._resources = resources
        self._hired: list[_Worker] = []
        self._own_ray = False

    def work(
        self,
        call: Callable[[Any, Any], Any],
        jobs: Sequence[Any],
        on_done: Callable[[int], None] = lambda _: None,
    ) -> list[Any]:
        """Have every job done by some worker.

        Args:
            call: Sends a job to an actor.
            jobs: The batches, the longest first.
            on_done: Called with a job's place when it is done.

        Returns:
            The results in the order of ``jobs``.

        Raises:
            RunError: If a job is lost with its worker again and again, or no worker is left.
        """
        if not jobs:
            return []
        self._start()
        waiting, results = deque(range(len(jobs))), dict[int, Any]()
        running: dict[Any, tuple[int, _Worker]] = {}
        idle, lost = deque(self._hired), Counter[int]()
        while len(results) < len(jobs):
            while idle and waiting:
                worker, index = idle.popleft(), waiting.popleft()
                running[call(worker.actor, jobs[index])] = index, worker
            reply = _first(running)
            index, worker = running.pop(reply)
            try:
                results[index] = _result(reply)
            except _LostError as death:
                waiting.appendleft(index)
                idle.extend(self._replace(worker, index, lost, death))
                self._require_some()
            else:
                idle.append(worker)
                on_done(index)
        return [results[index] for index in range(len(jobs))]

    def processes(self) -> dict[int, str]:
        """Process ids of the workers, and the GPUs that each sees."""
        ray = _ray()
        found = [ray.get(worker.where) for worker in self._hired]
        return {pid: gpus for _, pid, gpus in found}

    def end(self) -> None:
        """End the workers and wait until those of this host are gone, and their GPUs free."""
        if not self._hired and not self._own_ray:
            return
        ray = _ray()
        pids = self._pids_here()
        for worker in self._hired:
            ray.kill(worker.actor)
        self._hired = []
        limit = time.monotonic() + ENDING_S
        while any(alive(pid) for pid in pids) and time.monotonic() < limit:
            time.sleep(POLL_S)
        if self._own_ray:
            ray.shutdown()
            self._own_ray = False

    def _start(self) -> None:
        if self._hired:
            return
        ray = _ray()
        if not ray.is_initialized():  # no simulation on Ray around us: devices elsewhere, or inline
            paths = {"PYTHONPATH": os.pathsep.join(sys.path)}
            ray.init(
                **cluster.init_args(self._resources),
                include_dashboard=False,
                runtime_env={"env_vars": paths},
            )
            self._own_ray = True
        self._hired = [self._hire(seat) for seat in seats(self._resources, ray.nodes())]

    def _hire(self, seat: Placement) -> _Worker:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        actor = (
            _ray()
            .remote(CloudWorker)
            .options(
                num_cpus=0,
                num_gpus=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(
                    seat.node, soft=seat.gpu is None
                ),
                # else Ray hides all GPUs from who books none
                runtime_env={"env_vars": {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}},
            )
            .remote(seat.gpu, self._threads())
        )
        return _Worker(seat, actor, actor.where.remote())

    def _threads(self) -> int:
        """Threads of one worker: those of this process, shared out if they compute on CPUs."""
        import torch

        count = self._resources.cloud_workers
        return max(1, torch.get_num_threads() // (count if isinstance(count, int) else 1))

    def _replace(
        self, worker: _Worker, index: int, lost: Counter[int], death: _LostError
    ) -> Iterator[_Worker]:
        """Put a fresh worker in a dead one's seat, if the seat is still there."""
        ray = _ray()
        ray.kill(worker.actor)  # it may only have been out of reach
        self._hired.remove(worker)
        if worker.seat.gpu is not None and not _is_alive(worker.seat.node, ray.nodes()):
            return
        lost[index] += 1
        if lost[index] > self._resources.retries:
            raise RunError(
                f"cloud model: {lost[index]} workers died at the same batch ({death}); "
                "lower augmenter.batch_size, or raise resources.cloud_gpus"
            )
        fresh = self._hire(worker.seat)
        self._hired.append(fresh)
        yield fresh

    def _require_some(self) -> None:
        if not self._hired:
            raise RunError("cloud model: all nodes with its workers are gone; resume goes on")

    def _pids_here(self) -> list[int]:
        ray = _ray()
        here = ray.get_runtime_context().get_node_id()
        told, _ = ray.wait(
            [worker.where for worker in self._hired], num_returns=len(self._hired), timeout=ENDING_S
        )
        places = [place for each in told if (place := _place(each)) is not None]
        return [pid for node, pid in places if node == here]


def seats(resources: ResourcesConfig, nodes: Sequence[Mapping[str, Any]]) -> list[Placement]:
    """Where the workers sit: in turn on all GPUs, or in turn on all nodes with CPUs.

    Args:
        resources: How many, and what they compute on.
        nodes: Ray's nodes.

    Raises:
        RunError: If so many do not fit on the GPUs that there are.
    """
    there = [node for node in nodes if node["Alive"]]
    if not resources.cloud_device.startswith("cuda"):
        free = [Placement(node["NodeID"], None) for node in there if node["Resources"].get("CPU")]
        return [free[place % len(free)] for place in range(int(resources.cloud_workers))]
    gpus = [
        Placement(node["NodeID"], gpu)
        for node in there
        for gpu in range(int(node["Resources"].get("GPU", 0)))
    ]
    most = len(gpus) * resources.cloud_workers_per_gpu
    count = most if resources.cloud_workers == "per_gpu" else resources.cloud_workers
    if not 0 < count <= most:
        raise RunError(
            f"resources.cloud_workers: expected 1 to {most} on {len(gpus)} GPUs "
            f"(cloud_gpus={resources.cloud_gpus:g} for each), got {count}"
        )
    return [gpus[place % len(gpus)] for place in range(count)]


class _LostError(Exception):
    """A worker died with its job; the text names Ray's error class."""


def _ray() -> Any:
    """Ray, which is imported only where workers are wanted."""
    import ray

    return ray


def _result(reply: Any) -> Any:
    """The result of a job; what the model itself raised is raised here."""
    ray = _ray()
    try:
        return ray.get(reply)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        raise _LostError(type(error).__name__) from error


def _first(running: Mapping[Any, object]) -> Any:
    ready, _ = _ray().wait(list(running), num_returns=1)
    return ready[0]


def _place(reply: Any) -> tuple[str, int] | None:
    """Node and process id of a worker, None for one that is dead already."""
    try:
        node, pid, _ = _result(reply)
    except _LostError:
        return None
    return node, pid


def _is_alive(node: str, nodes: Sequence[Mapping[str, Any]]) -> bool:
    return any(each["NodeID"] == node and each["Alive"] for each in nodes)


def _in_order(batches: Sequence[Sequence[int]], results: Sequence[Sequence[T]]) -> list[T]:
    """What belongs to each index, from the results of the batches that the indices lay in."""
    found = {
        index: result
        for batch, part in zip(batches, results, strict=True)
        for index, result in zip(batch, part, strict=True)
    }
    return [found[index] for index in range(len(found))]
