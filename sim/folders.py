"""The run folder: its name, its parts, and the lock that keeps a second process out."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from conf.errors import RunError
from conf.schema import Config

SWEEP = "sweep.json"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Where everything of one run lies."""

    path: Path

    @property
    def devices(self) -> Path:
        """One folder per simulated device; the server never reads it."""
        return self.path / "devices"

    @property
    def config(self) -> Path:
        """The resolved configuration as JSON."""
        return self.path / "config.json"

    @property
    def server(self) -> Path:
        """What the server holds: where the public users lie."""
        return self.path / "server.json"

    @property
    def manifest(self) -> Path:
        """Versions, commit, seeds, models, assumptions."""
        return self.path / "manifest.json"


def new_run_folder(config: Config) -> RunFolder:
    """Make the folder of a new run: ``runs/<name>``, by default named by time, task and seed.

    Raises:
        RunError: If a folder of that name holds a run already.
    """
    name = config.name or f"{datetime.now():%Y%m%d-%H%M%S}-{config.task.name}-seed{config.seed}"
    path = (
        _free(Path(config.paths.runs), name)
        if config.name is None
        else (Path(config.paths.runs) / name)
    )
    if (path / "config.json").exists():
        raise RunError(
            f"name={name}: this run exists already; choose another name or delete {path}"
        )
    path.mkdir(parents=True, exist_ok=True)
    return RunFolder(path)


def find_run(run: str, runs: Path) -> RunFolder:
    """Find a run by folder or by name below ``runs``.

    Raises:
        RunError: If there is none.
    """
    for path in (Path(run), runs / run):
        if (path / "config.json").is_file():
            return RunFolder(path.resolve())
    raise RunError(
        f"run={run}: no such run; expected a folder with config.json, or a name in {runs}"
    )


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
    with (folder.path / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunError(
                f"{folder.path.name}: another process works on this run; wait for it to end"
            ) from error
        yield


def _free(runs: Path, name: str) -> Path:
    path, number = runs / name, 2
    while path.exists():
        path, number = runs / f"{name}-{number}", number + 1
    return path
