"""The run folder: its name, its parts, and the lock that keeps a second process out."""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO

from conf.compose import compose, from_json
from conf.errors import CdcdaError, RunError
from conf.schema import Config
from conf.words import required
from storage.writing import writing

ROOT = Path(__file__).resolve().parents[1]  # of the checkout
SWEEP = "sweep.json"
PREDECESSOR_S = 120.0


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Where everything of one run lies."""

    path: Path

    @property
    def devices(self) -> Path:
        """One folder per simulated device; the server never reads it."""
        return self.path / "devices"

    @property
    def requested(self) -> Path:
        """The configuration as it was asked for, as JSON; the first file of a run."""
        return self.path / "requested.json"

    @property
    def config(self) -> Path:
        """The resolved configuration as JSON; the last file of the set-up."""
        return self.path / "config.json"

    @property
    def server(self) -> Path:
        """What the server holds: where the public users lie."""
        return self.path / "server.json"

    @property
    def manifest(self) -> Path:
        """Versions, commit, seeds, models, assumptions."""
        return self.path / "manifest.json"

    @property
    def finished(self) -> Path:
        """Who failed; there once every user was tried in every arm."""
        return self.path / "finished.json"

    def read_config(self) -> Config:
        """The resolved configuration.

        Raises:
            RunError: If it was not written, or this version cannot read it.
        """
        if not self.config.is_file():
            remedy = f"go on with it: python -m sim resume run={self.path}"
            raise RunError(f"{self.path.name}: set-up of this run did not end; {remedy}")
        return self._read(self.config)

    def read_requested(self) -> Config:
        """The resolved configuration, or what was asked for where set-up did not end.

        Raises:
            RunError: If this version cannot read it.
        """
        return self._read(self.config if self.config.is_file() else self.requested)

    def _read(self, path: Path) -> Config:
        try:
            return from_json(path.read_text(encoding="utf-8"))
        except CdcdaError as error:
            reason = "the file was changed by hand or the run was made by another version"
            if str(error).startswith("plugins: "):
                reason = f"put it there again, or correct plugins in {path}"
            raise RunError(f"{self.path.name}/{path.name}: {error}; {reason}") from error

    @property
    def is_run(self) -> bool:
        """Whether a run was begun here."""
        return self.requested.is_file() or self.config.is_file()


def new_run_folder(config: Config) -> RunFolder:
    """Make the folder of a new run: ``runs/<name>``, by default named by time, task and seed.

    Raises:
        RunError: If a folder of that name holds a run already, or none can be made.
    """
    name = config.name or f"{datetime.now():%Y%m%d-%H%M%S}-{config.task.name}-seed{config.seed}"
    path = (
        _free(Path(config.paths.runs), name)
        if config.name is None
        else (Path(config.paths.runs) / name)
    )
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
    refuse_begun(RunFolder(path))
    return RunFolder(path)


def refuse_begun(folder: RunFolder) -> None:
    """Refuse to begin a run where there is one.

    Raises:
        RunError: If the folder holds a run.
    """
    if folder.is_run:
        name = folder.path.name
        raise RunError(
            f"name={name}: this run exists already; go on with it: python -m sim resume "
            f"run={name}, choose another name, or delete {folder.path}"
        )


def find_run(run: str, runs: Path) -> RunFolder:
    """Find a run by folder or by name below ``runs``.

    Raises:
        RunError: If there is none.
    """
    for path in (Path(run).expanduser(), runs.expanduser() / run):
        if RunFolder(path).is_run:
            return RunFolder(path.resolve())
    raise RunError(
        f"run={run}: no such run; expected a folder with config.json, or a name in {runs} "
        "(python -m sim runs lists them)"
    )


def runs_root(values: Mapping[str, str]) -> Path:
    """The folder of runs that a command was told by ``runs=<folder>``; else ``paths.runs``."""
    return Path(values.get("runs") or compose(()).paths.runs).expanduser()


def asked_run(command: str, values: Mapping[str, str]) -> RunFolder:
    """The run that a command was told by ``run=<folder or name>``.

    Raises:
        ConfigError: If it was told none.
        RunError: If there is no such run.
    """
    return find_run(required(command, values, "run", "demo"), runs_root(values))


def newest_run(runs: Path) -> Path:
    """The run below ``runs`` that was begun last, those of sweeps too.

    Raises:
        RunError: If there is none.
    """
    runs = runs.expanduser()
    begun = [path.parent for path in (*runs.glob("*/config.json"), *runs.glob("*/*/config.json"))]
    if not begun:
        raise RunError(f"no run in {runs}; make one: python -m sim")
    return max(begun, key=lambda path: (path / "config.json").stat().st_mtime_ns)


@dataclass(frozen=True, slots=True)
class Sweep:
    """Several runs that one command line started: ``runs/<sweep>/<run>``."""

    path: Path
    runs: tuple[Path, ...]


def find_sweep(name: str, runs: Path) -> Sweep | None:
    """Find a sweep by folder or by name below ``runs``, and those of its runs that were set up."""
    for path in (Path(name), runs / name):
        if (path / SWEEP).is_file():
            names = json.loads((path / SWEEP).read_text(encoding="utf-8"))["runs"]
            found = tuple(path / each for each in names if (path / each / "config.json").is_file())
            return Sweep(path.resolve(), found)
    return None


@contextmanager
def locked(folder: RunFolder) -> Iterator[None]:
    """Hold the run folder for this process.

    Raises:
        RunError: If another process works on it.
    """
    lock = folder.path / ".lock"
    with writing(lock), lock.open("w") as file:
        if not _taken(file):
            raise RunError(
                f"{folder.path.name}: another process works on this run; wait for it to end"
            )
        yield


@contextmanager
def served(folder: RunFolder) -> Iterator[None]:
    """Hold the run folder for a ServerApp that works on it.

    One whose driver was killed ends by itself; its successor waits here until it did.

    Raises:
        RunError: If it does not end.
    """
    lock = folder.path / ".server.lock"
    end = time.monotonic() + PREDECESSOR_S
    with writing(lock), lock.open("w") as file:
        while not _taken(file):
            if time.monotonic() > end:
                raise RunError(
                    f"{folder.path.name}: an earlier ServerApp still works on this run; "
                    "resume when it has ended"
                )
            time.sleep(1)
        yield


def _taken(file: IO[str]) -> bool:
    """Whether the lock could be taken."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _free(runs: Path, name: str) -> Path:
    path, number = runs / name, 2
    while path.exists():
        path, number = runs / f"{name}-{number}", number + 1
    return path
