"""Where a virtual client finds the devices and the base models.

The command line names the folders in the run config. Under ``flwr run`` nobody can: there the
server sets the run up below the cache, in a folder named by Flower's run id; both sides find it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from flwr.app import Context

from clients.folder import device_folders
from conf.errors import RunError

CACHE_VARIABLE = "CDCDA_CACHE"


def real_folder(context: Context) -> Path | None:
    """The folder that a real device was started with; None for a virtual one."""
    own = context.node_config.get("device-folder")
    return Path(str(own)) if own else None


def own_folder(context: Context) -> Path:
    """The device's folder, real or virtual.

    Raises:
        RunError: If there are more nodes than devices.
    """
    if own := real_folder(context):
        return own
    folders, index = virtual_folders(context)
    return folders[index]


def virtual_folders(context: Context) -> tuple[tuple[Path, ...], int]:
    """All virtual devices' folders, and which of them is this one's.

    Raises:
        RunError: If there are more nodes than devices.
    """
    folders = device_folders(devices_root(context))
    index = int(context.node_config["partition-id"])
    if index >= len(folders):
        raise RunError(
            f"node {index}: there are only {len(folders)} devices; start as many nodes as users"
        )
    return folders, index


def devices_root(context: Context) -> Path:
    """The folder that holds one folder per device."""
    named = str(context.run_config.get("devices-root", ""))
    return Path(named) if named else public_route_folder(context) / "devices"


def bases_root(context: Context) -> Path:
    """The folder that holds base models by their content id."""
    named = str(context.run_config.get("bases-root", ""))
    return Path(named) if named else cache_folder(context.run_config) / "bases"


def public_route_folder(context: Context) -> Path:
    """The run folder of a run that was started by ``flwr run``."""
    return cache_folder(context.run_config) / "flwr-runs" / str(context.run_id)


def cache_folder(run_config: Mapping[str, object]) -> Path:
    """The cache: the run config's, else $CDCDA_CACHE, else ~/.cache/cdcda."""
    named = str(run_config.get("cache", "")) or os.environ.get(CACHE_VARIABLE, "")
    return Path(named or "~/.cache/cdcda").expanduser().absolute()
