"""``engine=flwr_run`` and ``engine=deployment``: a run that a SuperLink carries out.

The run was set up as always; the ServerApp finds it by its folder, so this process and the
SuperLink work on one host. ``flwr run`` ends with status 0 whatever happened: what counts is what
the SuperLink says of the run.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from conf.errors import RunError
from conf.schema import Config
from sim.folders import ROOT, RunFolder
from sim.run.credentials import LOOPBACK
from sim.run.flower_processes import COMPLETED, Control, free_ports, start_superlink
from sim.run.progress_file import Follower
from strategy.base_model import bases_root
from strategy.progress import Progress

ASK_S = 3.0
ASK_PAUSES = 4.0  # asking starts a program: it may take a fifth of the time at most
NEWS_S = 0.2
LOOK_S = 2.0
FINISHED = "finished"
FIRST_PERSON, NOBODY = 1000, 65534  # user ids: below are services


def run_on_superlink(
    folder: RunFolder,
    config: Config,
    progress: Progress,
    on_arm: Callable[[str], None] = lambda _: None,
) -> None:
    """Submit the run, show its progress, and wait for its end.

    Raises:
        RunError: If the SuperLink says anything but that the run was completed.
    """
    follower = Follower(folder, progress, on_arm)
    with _superlink(folder, config) as (control, look):
        run_id = control.submit(ROOT, run_config(folder, config), _federation(config))
        try:
            status, details = _wait(control, run_id, follower, look)
        except BaseException:
            with suppress(RunError):
                control.stop(run_id)
            raise
    follower.close()
    if status != COMPLETED:
        raise RunError(
            f"{folder.path.name}: the SuperLink says {status} ({details or 'no details'}); "
            f"see {folder.path / 'flower'}"
        )


def run_config(folder: RunFolder, config: Config) -> dict[str, Any]:
    """What server and devices may read of the run: a real device learns its time limit alone."""
    told = {"run-folder": str(folder.path), "client-limit-s": config.message_limit_s}
    if config.engine.name == "deployment":
        return told
    cache = Path(config.paths.cache)
    return {**told, "devices-root": str(folder.devices), "bases-root": str(bases_root(cache))}


def _federation(config: Config) -> dict[str, Any]:
    if config.engine.name == "deployment":
        return {}
    resources = config.resources
    return {
        "num-supernodes": config.users,
        "client-resources-num-cpus": int(resources.client_cpus),
        "client-resources-num-gpus": resources.client_gpus,
        "init-args-num-cpus": resources.num_cpus or os.cpu_count() or 1,
        "init-args-num-gpus": resources.num_gpus,
    }


@contextmanager
def _superlink(folder: RunFolder, config: Config) -> Iterator[tuple[Control, Callable[[], None]]]:
    """The SuperLink that is named, or one of our own that ends with the run.

    What it starts has to be looked at now and then, so that all of it is found at the end.
    """
    home, engine = folder.path / "flower", config.engine
    if engine.superlink:
        ca = Path(engine.root_certificates).absolute() if engine.root_certificates else None
        yield Control(home, engine.superlink, ca), lambda: None
        return
    require_alone(config)
    (port,) = free_ports(1)
    started = start_superlink(home, port, None, simulation=True)
    try:
        yield Control(home, f"{LOOPBACK}:{port}", None), started.look
    finally:
        started.end()


def require_alone(config: Config, processes: Path = Path("/proc")) -> None:
    """Refuse a SuperLink of our own where other people are on this machine.

    It listens on loopback without accounts: whoever is logged in could submit a run, and with it
    code that works as this user.

    Raises:
        RunError: If processes of other people are found.
    """
    if config.engine.trust_local_users:
        return
    others = {
        uid
        for path in processes.glob("[0-9]*")
        if (uid := _owner(path)) >= FIRST_PERSON and uid not in (os.getuid(), NOBODY)
    }
    if others:
        raise RunError(
            f"engine=flwr_run: {len(others)} other user(s) of this machine have processes here; "
            "its SuperLink is open to all of them, so take engine=simulation, or set "
            "engine.trust_local_users=true"
        )


def _owner(process: Path) -> int:
    try:
        return process.stat().st_uid
    except OSError:  # it ended
        return 0


def _wait(
    control: Control, run_id: str, follower: Follower, look: Callable[[], None]
) -> tuple[str, str]:
    """Show progress until the SuperLink says that the run is finished."""
    last_sign = last_look = time.monotonic()
    pause_s = ASK_S
    while True:
        if time.monotonic() - last_look > LOOK_S:
            look()
            last_look = time.monotonic()
        if follower.show_news():
            last_sign = time.monotonic()
        asked = time.monotonic()
        if asked - last_sign > pause_s:  # not while news come in
            status, details = control.status(run_id)
            if status.startswith(FINISHED):
                return status, details
            last_sign = time.monotonic()
            pause_s = max(ASK_S, ASK_PAUSES * (last_sign - asked))
        time.sleep(NEWS_S)
