"""How devices are placed on the machine: how many actors there are, and who trains together."""

from __future__ import annotations

import math
import os
from dataclasses import replace

from conf.schema import Config, ResourcesConfig
from models.checkpoint import hidden_size
from sim.run import cluster

SMALL_WIDTH = 256  # hidden size up to which training together pays on a CPU


def with_cohort(config: Config) -> Config:
    """Settle how many devices train together where ``qlora.cohort`` is "auto".

    Args:
        config: Run, model paths resolved.

    Raises:
        ModelError: If there is no device model.
    """
    if config.qlora.cohort != "auto":
        return config
    if config.engine.name == "deployment":  # a real device is a cohort of itself
        return replace(config, qlora=replace(config.qlora, cohort=1))
    device = config.model.device
    most = suited_size(
        hidden_size(device.path, device.revision), on_gpu=config.resources.client_gpus > 0
    )
    size = even_size(config.users, actors(config.resources), most)
    return replace(config, qlora=replace(config.qlora, cohort=size))


def suited_size(width: int, on_gpu: bool) -> int:
    """Return how many users at most train at once where ``qlora.cohort`` is "auto".

    On a CPU a cohort saves operations, not arithmetic: it pays for small networks, and beyond eight
    users what they add falls out of the processor's caches (docs/LOG.md). On a GPU the memory is
    the bound, which :func:`models.multi_lora.cohort.fitting_size` knows.

    Args:
        width: Hidden size of the base model.
        on_gpu: Whether the devices train on a GPU.
    """
    if on_gpu:
        return 32
    return 8 if width <= SMALL_WIDTH else 1


def actors(resources: ResourcesConfig) -> int:
    """Devices that work at the same time, at least one."""
    if resources.backend == "inline":
        return 1
    cpus, gpus = available(resources)
    places = [cpus / resources.client_cpus]
    if resources.client_gpus:
        places.append(gpus / resources.client_gpus)
    return max(1, int(min(places)))


def available(resources: ResourcesConfig) -> tuple[int, int]:
    """CPUs and GPUs that devices may use: the settings', or what the cluster has.

    Raises:
        RunError: If there is no such cluster.
    """
    if resources.cluster:
        found = cluster.size()
        return found.cpus, found.gpus
    return resources.num_cpus or os.cpu_count() or 1, resources.num_gpus


def even_size(users: int, actors: int, most: int) -> int:
    """Devices per cohort, ``most`` at most, such that every actor gets equally many cohorts."""
    rounds = math.ceil(users / (actors * most))
    return math.ceil(users / (actors * rounds))
