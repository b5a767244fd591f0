"""``python -m sim``: compose, check, set up, simulate, report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from conf.compose import compose
from conf.schema import Config
from sim.engine import set_environment, simulate
from sim.folders import RunFolder, locked
from sim.prepare import check, prepare, server_inputs
from sim.progress import TerminalProgress
from sim.tracker import track_arms
from storage import jsonlines

EXIT_OK = 0
EXIT_PARTIAL = 3


def main(overrides: Sequence[str], dry_run: bool = False) -> int:
    """Run one experiment; with ``dry_run`` only tell what would run.

    Returns:
        0 when all users finished all arms, 3 when some failed.
    """
    console = Console()
    config = _with_absolute_paths(compose(overrides))
    if dry_run:
        from sim.estimate import print_estimate

        print_estimate(config, check(config), console)
        return EXIT_OK
    return run(config, console)


def run(config: Config, console: Console) -> int:
    """Set up, simulate and report one experiment."""
    set_environment()  # before anything imports transformers
    from sim.report import print_report, write_report

    started = time.perf_counter()
    progress = TerminalProgress(console)
    console.print(_headline(config), highlight=False)
    folder = prepare(config, progress)
    with locked(folder):
        with track_arms(config.trackers, folder.path) as on_arm:
            simulate(folder, server_inputs(folder), progress, on_arm)
        write_report([folder.path])
    print_report([folder.path], console)
    console.print(f"\n{time.perf_counter() - started:.0f} s; all files in {folder.path}")
    return EXIT_PARTIAL if failed_users(folder) else EXIT_OK


def failed_users(folder: RunFolder) -> set[str]:
    """Users with at least one message that got no good reply."""
    return {row["user"] for row in jsonlines.read(folder.path / "failures.jsonl")}


def _headline(config: Config) -> str:
    return (
        f"[bold]{config.task.name}[/bold] on {config.data}: {config.users} users, "
        f"{', '.join(config.methods)}; models {config.model.name}, seed {config.seed}"
    )


def _with_absolute_paths(config: Config) -> Config:
    paths = replace(
        config.paths,
        cache=str(Path(config.paths.cache).expanduser().absolute()),
        runs=str(Path(config.paths.runs).expanduser().absolute()),
    )
    data = config.data if config.data == "miniature" else str(Path(config.data).absolute())
    return replace(config, paths=paths, data=data)
