"""A Ray cluster that runs already: joined, counted, and asked whether it sees our folders.

Actors land on any node, so code, Python and run folder must have the same paths on all of them:
a folder shared over the network, in which the devices' folders and adapters lie.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conf.errors import RunError
from conf.schema import ResourcesConfig

ADDRESS_VARIABLE = "RAY_ADDRESS"
LOCAL = "local"
ASK_S = 60.0
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Size:
    """What the nodes of a cluster have together.

    Attributes:
        nodes: Nodes that are alive.
        cpus: CPUs.
        gpus: GPUs.
    """

    nodes: int
    cpus: int
    gpus: int


def address() -> str:
    """Where the cluster is.

    Raises:
        RunError: If RAY_ADDRESS names none.
    """
    named = os.environ.get(ADDRESS_VARIABLE, "")
    if named in ("", LOCAL):
        raise RunError(
            f"resources=cluster: expected the address of a running Ray cluster in "
            f"{ADDRESS_VARIABLE}, got {named or 'nothing'}; export {ADDRESS_VARIABLE}=<host>:6379"
        )
    return named


def init_args(resources: ResourcesConfig) -> dict[str, Any]:
    """How Ray is initialised: joined where there is a cluster, else started within bounds."""
    quiet = {"logging_level": "ERROR", "log_to_driver": False}
    if resources.cluster:
        return {"address": address(), **quiet}
    return {
        "address": LOCAL,
        "num_cpus": resources.num_cpus or os.cpu_count() or 1,
        "num_gpus": resources.num_gpus,
        "object_store_memory": resources.object_store_mib * MIB,
        **quiet,
    }


def size() -> Size:
    """Count the cluster's nodes, CPUs and GPUs.

    Raises:
        RunError: If it cannot be joined.
    """
    with _joined() as ray:
        found = ray.cluster_resources()
        alive = [node for node in ray.nodes() if node["Alive"]]
    return Size(len(alive), int(found.get("CPU", 0)), int(found.get("GPU", 0)))


def require_shared(path: Path) -> None:
    """See that every node finds ``path``.

    Raises:
        RunError: If one does not; the message names it.
    """
    with _joined() as ray:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        sees = ray.remote(num_cpus=0)(os.path.exists)
        asked = {
            node["NodeManagerAddress"]: sees.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ).remote(str(path))
            for node in ray.nodes()
            if node["Alive"]
        }
        blind = [host for host, reply in asked.items() if not ray.get(reply, timeout=ASK_S)]
    if blind:
        raise RunError(
            f"resources=cluster: {', '.join(blind)} does not see {path}; put paths.runs, "
            "paths.cache and plugins into a folder that all nodes share under one path"
        )


@contextmanager
def _joined() -> Iterator[Any]:
    import ray

    try:
        ray.init(address=address(), logging_level=logging.ERROR, log_to_driver=False)
    except (ConnectionError, RuntimeError) as error:
        raise RunError(
            f"resources=cluster: no Ray cluster at {address()} ({type(error).__name__}); start it "
            f"with 'ray start --head', or correct {ADDRESS_VARIABLE}"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()
