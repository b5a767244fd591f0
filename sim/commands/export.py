"""``python -m sim export run=... user=...|all``: users' models as files for llama.cpp or PEFT.

Plays the users of a simulation, each of whom exports from the own device (:mod:`clients.export`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from clients import folder as device_folder
from clients.export import Target, export, target_of
from clients.folder import Device
from conf.words import read_words, required
from protocol.settings import settings_of
from sim.commands.answer import adapter_of, find_device
from sim.folders import RunFolder, asked_run
from sim.report.tables import plural
from sim.terminal import PlainConsole

USAGE = (
    "usage: python -m sim export run=<folder or name> user=<id>|all out=<folder>\n"
    "       [arm=<name>] [format=gguf|merged|peft] [weights=q8_0|q4_0|q4_k_m|f16]\n"
    "arm is the last one trained unless it is given; docs/device.md tells how to use the files."
)
EVERYBODY = "all"


def main(argv: Sequence[str]) -> int:
    """Export one user's adapter, or everybody's."""
    console = PlainConsole()
    if set(argv) & {"-h", "--help"}:
        console.print(USAGE)
        return 0
    known = ("run", "user", "arm", "format", "weights", "out", "runs")
    values, _ = read_words("export", argv, known)
    run = asked_run("export", values)
    user = required("export", values, "user", "17 or user=all")
    required("export", values, "out", "exported")
    target = target_of(values)
    devices = _everybody(run) if user == EVERYBODY else [find_device(run, user)]
    started = time.perf_counter()
    folders = export_users(run, devices, values.get("arm"), target)
    seconds = time.perf_counter() - started
    size = sum(path.stat().st_size for path in target.out.rglob("*") if path.is_file())
    console.print(
        f"{plural(len(folders), 'adapter')} in {target.out} ({size / 1e6:.1f} MB with the base, "
        f"{seconds:.1f} s)\nfirst: {folders[0]}",
        highlight=False,
        markup=False,
    )
    return 0


def export_users(
    run: RunFolder, devices: Sequence[Device], arm: str | None, target: Target
) -> list[Path]:
    """Export the adapter of ``arm`` (None: the last one trained) of each device.

    Returns:
        One folder per device.

    Raises:
        RunError: If a device has no adapter.
        ConfigError: If it has none of that arm.
    """
    settings = settings_of(run.read_config())
    folders = []
    for device in devices:
        chosen, base_folder = adapter_of(run, device, arm)
        folders.append(export(device, chosen, base_folder, settings, target))
    return folders


def _everybody(run: RunFolder) -> list[Device]:
    return [device_folder.read(path) for path in device_folder.device_folders(run.devices)]
