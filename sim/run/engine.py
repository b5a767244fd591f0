"""The Flower simulation in this process: exit codes, restartable actors, all of Ray's settings.

``flwr run`` serves the same apps (see sim.server_app), but its exit status is always 0 and it
cannot make actors restartable; so the command line starts the simulation through flwr's own,
private ``_run_simulation``, pinned to flwr 1.41. Without ``max_restarts`` one dead actor poisons a
whole run: the pool hands out the dead actor again and again.
"""

from __future__ import annotations

import logging
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from conf.schema import Config, ResourcesConfig
from sim.folders import ROOT, RunFolder
from sim.run import cluster
from sim.run.placement import actors
from sim.run.processes import descendants, title
from sim.run.server import ServerInputs, run_experiment
from strategy.base_model import bases_root
from strategy.progress import Progress

CLIENT_APP = "clients.app:app"
RUN_ID = 1
DEVICE_TITLE = b"ClientAppActor"  # in the command line of Ray's actors

ENVIRONMENT = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ADDRESS": "local",  # else Ray joins any cluster that runs on this host
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a device that books no GPU sees none
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",  # transformers' own bars would cut through ours
    # a thread that waits spins for microseconds, then sleeps: others may need the core
    "OMP_WAIT_POLICY": "PASSIVE",
    "GOMP_SPINCOUNT": "1000",
}


VISIBLE = "CUDA_VISIBLE_DEVICES"
LOCAL = ("127.0.0.1", "localhost")


def set_environment() -> None:
    """Set what libraries read when they are imported, where the user has not set it."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    _never_ask_a_proxy_for(*LOCAL)
    for message in ("`torch.jit.script_method` is deprecated", "Tip: In future versions of Ray"):
        warnings.filterwarnings("ignore", message=message)


def _never_ask_a_proxy_for(*hosts: str) -> None:
    """Add ``hosts`` to those that are reached directly; libraries read either spelling."""
    for name in ("NO_PROXY", "no_proxy"):
        given = [each for each in os.environ.get(name, "").split(",") if each.strip()]
        os.environ[name] = ",".join(dict.fromkeys((*given, *hosts)))


def simulate(
    folder: RunFolder,
    inputs: ServerInputs,
    progress: Progress,
    on_arm: Callable[[str], None] = lambda _: None,
) -> None:
    """Run the experiment of ``inputs`` by the configured engine.

    Raises:
        CdcdaError: What the server raised.
    """
    set_environment()
    _log_to_file(folder.path / "flower.log")
    with _gpus_of(inputs.config.resources):
        _run(folder, inputs, progress, on_arm)


def _run(
    folder: RunFolder, inputs: ServerInputs, progress: Progress, on_arm: Callable[[str], None]
) -> None:
    run_config = client_run_config(inputs.config, folder)
    if inputs.config.engine.name != "simulation":
        from sim.run.superlink import run_on_superlink

        run_on_superlink(folder, inputs.config, progress, on_arm)
    elif inputs.config.resources.backend == "inline":
        from sim.run.inline import run_inline

        run_inline(run_config, inputs, progress, on_arm)
    else:
        _run_ray(run_config, inputs, progress, on_arm)


@contextmanager
def _gpus_of(resources: ResourcesConfig) -> Iterator[None]:
    """Hide all GPUs while a run works that is to use none, from this process and what it starts.

    Devices in Ray's processes see what they book; the server's own process, in which oracles
    answer, would see them all.
    """
    before = os.environ.get(VISIBLE)
    if not resources.client_gpus and resources.cloud_device == "cpu":
        os.environ[VISIBLE] = ""
    try:
        yield
    finally:
        os.environ.pop(VISIBLE, None)
        if before is not None:
            os.environ[VISIBLE] = before


def client_run_config(config: Config, folder: RunFolder) -> dict[str, Any]:
    """What every device may read of the run: folders and the time limit, no policy."""
    return {
        "devices-root": str(folder.devices),
        "bases-root": str(bases_root(Path(config.paths.cache))),
        "client-limit-s": config.message_limit_s,
    }


def backend_config(resources: ResourcesConfig) -> dict[str, Any]:
    """Flower's backend settings: actors restart, memory is bounded, Ray counts what it may use."""
    return {
        "client_resources": {
            "num_cpus": resources.client_cpus,
            "num_gpus": resources.client_gpus,
            "max_restarts": -1,
            "max_task_retries": 0,  # the strategy sends again, and counts it
        },
        "init_args": cluster.init_args(resources),
    }


def _run_ray(
    run_config: dict[str, Any],
    inputs: ServerInputs,
    progress: Progress,
    on_arm: Callable[[str], None],
) -> None:
    from flwr.app import Context, RecordDict
    from flwr.common.constant import SUPERLINK_NODE_ID
    from flwr.serverapp import Grid, ServerApp
    from flwr.simulation.run_simulation import _run_simulation
    from flwr.supercore.constant import NOOP_FEDERATION_ID
    from flwr.supercore.run import Run
    from flwr.supercore.task_identity import TaskIdentity
    from flwr.supercore.telemetry import EventType

    server_app = ServerApp()
    resources = inputs.config.resources
    if resources.cluster:
        cluster.require_shared(inputs.run_folder / "config.json")
        cluster.require_shared(bases_root(Path(inputs.config.paths.cache)).parent)
        for plugin in inputs.config.plugins:
            cluster.require_shared(Path(plugin))
    _keep_devices_at_work(actors(resources))

    @server_app.main()
    def main(grid: Grid, _context: Context) -> None:
        run_experiment(grid, inputs, progress, on_arm, end_hung=end_devices)

    run = Run.create_empty(run_id=RUN_ID)
    run.primary_task_id, run.federation_id = 1, NOOP_FEDERATION_ID
    run.override_config = run_config
    TaskIdentity.task_id, TaskIdentity.run_id = 1, RUN_ID
    TaskIdentity.node_id = SUPERLINK_NODE_ID
    _run_simulation(
        num_supernodes=inputs.config.users,
        exit_event=EventType.PYTHON_API_RUN_SIMULATION_LEAVE,
        server_app=server_app,
        client_app_attr=CLIENT_APP,
        backend_name="ray",
        backend_config=backend_config(resources),
        server_app_context=Context(
            run_id=RUN_ID,
            node_id=SUPERLINK_NODE_ID,
            node_config={},
            state=RecordDict(),
            run_config=run_config,
        ),
        app_dir=str(ROOT),
        run=run,
        is_app=True,
    )


def _keep_devices_at_work(workers: int) -> None:
    """Hand each message to a living actor, without a search, and let every actor work.

    Flower starts as many threads as this host's cores suggest, at most 32. A thread waits for one
    actor's reply, so it costs nothing.
    """
    from flwr.server.superlink.fleet.vce import vce_api
    from flwr.server.superlink.fleet.vce.backend import raybackend

    from sim.run.device_pool import LivingPool
    from sim.run.hand_over import hand_over

    vars(raybackend)["BasicActorPool"] = LivingPool
    vars(vce_api)["add_messages_to_queue"] = hand_over
    capped = min(32, (os.cpu_count() or 1) + 4)
    if workers > capped:
        vars(vce_api)["ThreadPoolExecutor"] = partial(ThreadPoolExecutor, max_workers=workers)


def end_devices() -> int:
    """End the device processes of this simulation by their ids; Ray starts fresh ones.

    A stopped process, or one that hangs outside Python, cannot watch its own clock.
    """
    found = [pid for pid in descendants(os.getpid()) if DEVICE_TITLE in title(pid)]
    for pid in found:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return len(found)


def _log_to_file(path: Path) -> None:
    """Flower's own log goes to the run folder; the terminal shows progress instead."""
    logger = logging.getLogger("flwr")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    logger.propagate = False
