"""Live metrics beside the run folder: TensorBoard, Weights & Biases, both or none.

The engine calls back at the end of each arm with :func:`track_arms`; metrics, seconds per phase and
losses are read from the run folder. A tracker that was asked for and is not installed is refused
before anything runs.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from conf.errors import ConfigError
from sim.report.pooling import arm_numbers
from sim.report.run_records import read_run

PROJECT = "cdcda-plm"


class Tracker(Protocol):
    """Takes numbers while a run goes on."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record ``metrics`` (e.g. {"cdcda/rouge1": 0.31}) under ``step``, the arms done so far."""

    def close(self) -> None:
        """Write what is still in memory."""


class TensorBoardTracker:
    """Writes event files below the run folder: ``tensorboard --logdir runs``."""

    def __init__(self, folder: Path) -> None:
        """Open ``folder``/tensorboard."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError(_missing("tensorboard")) from error
        self._writer = SummaryWriter(log_dir=str(folder / "tensorboard"))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record one scalar per metric."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()


class WandbTracker:
    """Sends to Weights & Biases; ``WANDB_MODE=offline`` keeps everything in the run folder."""

    def __init__(self, folder: Path) -> None:
        """Start a W&B run named like the run folder."""
        try:
            wandb: Any = importlib.import_module("wandb")
        except ImportError as error:
            raise ConfigError(_missing("wandb")) from error
        self._run: Any = wandb.init(project=PROJECT, name=folder.name, dir=str(folder))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record the metrics in one W&B step; several calls may share a step."""
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        """Finish the W&B run."""
        self._run.finish()


class Trackers:
    """Several trackers as one; with none it does nothing."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        """Pass everything on to ``trackers``, in order."""
        self._trackers = tuple(trackers)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record with every tracker."""
        for tracker in self._trackers:
            tracker.log(step, metrics)

    def close(self) -> None:
        """Close every tracker."""
        for tracker in self._trackers:
            tracker.close()


TRACKERS: dict[str, Callable[[Path], Tracker]] = {
    "tensorboard": TensorBoardTracker,
    "wandb": WandbTracker,
}


def check_installed(names: Sequence[str]) -> None:
    """Refuse a tracker that is not installed, before anything runs.

    Raises:
        ConfigError: If a package is missing; the message says how to get it.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(_missing(name))


def open_trackers(names: Sequence[str], folder: Path) -> Trackers:
    """Open the configured trackers (``Config.trackers``) for one run folder.

    Raises:
        ConfigError: If a tracker's package is not installed.
    """
    return Trackers([TRACKERS[name](folder) for name in names])


@contextmanager
def track_arms(names: Sequence[str], folder: Path) -> Iterator[Callable[[str], None]]:
    """Yield what to call with an arm's name when it is done: its numbers go to the trackers.

    Without trackers nothing is read. ``step`` counts the arms that are done.
    """
    trackers, done = open_trackers(names, folder), itertools.count(1)

    def arm_done(arm: str) -> None:
        if names:
            trackers.log(next(done), arm_numbers(read_run(folder), arm))

    try:
        yield arm_done
    finally:
        trackers.close()


def _missing(package: str) -> str:
    return (
        f"trackers: {package} is not installed; "
        f"run 'pip install {package}' or leave it out of trackers"
    )
