"""What a run found, as pandas data frames: for notebooks and one's own analysis.

    from sim.results import compare, load_run

    run = load_run()  # the newest one; or a folder, or a name below runs/
    run.users.groupby("arm")["rouge1"].mean()
    compare([run], "cdcda", "direct_ft")

Columns and units stand in :data:`sim.report.frames.COLUMNS`. Nothing is computed before it is asked
for, and the run folder is only read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from conf.compose import compose
from conf.errors import ConfigError
from conf.names import suggestion
from sim.folders import find_run, newest_run
from sim.report import frames
from sim.report.pooling import summarise
from sim.report.run_records import Run, read_run

__all__ = ["RunFrames", "compare", "load_run", "scores"]

_ENDS = ("value", "low", "high")
_TESTED = ("p", "adjusted_p", "minimum_detectable_effect", "required_sample_size")


class RunFrames:
    """One run; each property is a frame, made at its first use.

    Attributes:
        run: The checked records that the frames are made from.
    """

    def __init__(self, run: Run) -> None:
        """Wrap what :func:`sim.report.run_records.read_run` read."""
        self.run = run

    def __repr__(self) -> str:
        """Tell which run it is."""
        return f"RunFrames({self.run.folder.name}, {self.run.task.name}, {', '.join(self.arms)})"

    @cached_property
    def answers(self) -> pd.DataFrame:
        """One row per scored query and arm."""
        return frames.answers_frame(self.run)

    @cached_property
    def training(self) -> pd.DataFrame:
        """One row per trained adapter."""
        return frames.training_frame(self.run)

    @cached_property
    def augmentation(self) -> pd.DataFrame:
        """One row per arm and user who was asked to share."""
        return frames.augmentation_frame(self.run)

    @cached_property
    def candidates(self) -> pd.DataFrame:
        """One row per synthetic candidate."""
        return frames.candidates_frame(self.run)

    @cached_property
    def ledger(self) -> pd.DataFrame:
        """One row per message that crossed the wire."""
        return frames.ledger_frame(self.run)

    @cached_property
    def users(self) -> pd.DataFrame:
        """One row per arm and user."""
        return frames.users_frame(self.run)

    @cached_property
    def leakage(self) -> pd.DataFrame:
        """One row per attacked arm, user and kind of records; empty without an audit."""
        return frames.leakage_frame(self.run)

    @cached_property
    def phases(self) -> pd.DataFrame:
        """One row per timed phase."""
        return frames.phases_frame(self.run)

    @cached_property
    def failures(self) -> pd.DataFrame:
        """One row per message without a good reply."""
        return frames.failures_frame(self.run)

    @cached_property
    def config(self) -> pd.DataFrame:
        """One row per dotted key of the configuration."""
        return frames.config_frame(self.run)

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the arms, in the order of the configuration."""
        return tuple(arm.name for arm in self.run.arms)


def load_run(path: str | Path | None = None) -> RunFrames:
    """Read a run.

    Args:
        path: Its folder, or its name below ``paths.runs``; None takes the newest one there.

    Raises:
        RunError: If there is no such run, or a file in it was damaged.
    """
    runs = Path(compose(()).paths.runs)
    return RunFrames(read_run(newest_run(runs) if path is None else find_run(str(path), runs).path))


def scores(runs: RunFrames | Sequence[RunFrames]) -> pd.DataFrame:
    """Every arm's pooled metrics with intervals over users; several runs are seeds of one setting.

    Returns:
        Columns arm, metric, value, low, high, std (over seeds), users, queries.

    Raises:
        RunError: If the runs differ in more than their seeds.
    """
    pooled = summarise(_records(runs))
    rows = [
        {
            "arm": result.arm.name,
            "metric": metric,
            "value": found.value,
            "low": found.low,
            "high": found.high,
            "std": found.spread,
            "users": result.users,
            "queries": result.queries,
        }
        for result in pooled.arms
        for metric, found in result.metrics.items()
    ]
    return _frame(rows, ("arm", "metric", *_ENDS, "std", "users", "queries"))


def compare(runs: RunFrames | Sequence[RunFrames], a: str, b: str) -> pd.DataFrame:
    """Arm ``a`` minus arm ``b``, users paired, over the queries that both answered.

    Args:
        runs: A run, or one per seed of the same setting.
        a: Name of an arm.
        b: Name of another.

    Returns:
        Columns metric, value, low, high (bootstrap over users), p (users' scores swapped),
        adjusted_p (Holm's, of a declared contrast's headline metric), minimum_detectable_effect
        and required_sample_size (at 80 % power), users, queries.

    Raises:
        ConfigError: If an arm is unknown, both are the same, or no query is common to them.
        RunError: If the runs differ in more than their seeds.
    """
    pooled = summarise(_records(runs))
    known = [result.arm.name for result in pooled.arms]
    for name in (a, b):
        if name not in known:
            raise ConfigError(f"{name}: no such arm. {suggestion(name, known)}")
    if a == b:
        raise ConfigError(f"{a}: expected two different arms")
    (first,) = (result for result in pooled.arms if result.arm.name == a)
    if not (differences := first.differences.get(b)):
        raise ConfigError(f"{a} and {b}: no user has a query that both arms answered")
    rows = [{"metric": metric, **asdict(found)} for metric, found in differences.items()]
    return _frame(rows, ("metric", *_ENDS, *_TESTED, "users", "queries"))


def _records(runs: RunFrames | Sequence[RunFrames]) -> list[Run]:
    return [each.run for each in ([runs] if isinstance(runs, RunFrames) else runs)]


def _frame(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    """A frame with these columns, be there rows or not; what is undefined is NaN."""
    numbers = dict.fromkeys({*_ENDS, *_TESTED, "std"} & {*columns}, "float64")
    return pd.DataFrame(rows, columns=[*columns]).astype(numbers)
