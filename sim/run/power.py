"""Before a run: the smallest difference between two arms that its users and queries can find.

What is needed for it, how much paired differences vary from user to user, comes from earlier runs
of the same task, or else from a stated prior (docs/assumptions.md).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from conf.errors import CdcdaError
from conf.schema import Config
from lamp import metrics
from lamp.dataset import LampData
from lamp.records import UserHistory
from sim.report.tables import metric_title, number, plural
from sim.statistics import POWER, detectable_difference
from storage import jsonlines

FEWEST_USERS = 5  # of an earlier run whose variance is taken


@dataclass(frozen=True, slots=True)
class Spread:
    """How much the paired difference of two arms varies.

    Attributes:
        per_user: Standard deviation over users of a user's difference, in the metric's own unit.
        queries: Queries per user that it was seen with.
        source: Where it comes from.
    """

    per_user: float
    queries: float
    source: str


# Standard deviations with ten queries per user. ROUGE-1 is measured: the interval of direct_ft
# minus M_base over 40 users (docs/assumptions.md); the others are guesses.
PRIOR_QUERIES = 10.0
PRIORS = {"rouge1": 0.022, "accuracy": 0.14, "mae": 0.19}
PRIOR_SOURCE = "a prior, as no earlier run of this task is here"


def planned_power(config: Config, data: LampData) -> str:
    """Say which true difference in the task's headline metric the planned users can find."""
    name, _ = metrics.headline(data.task)
    asked = [user for user in data.targets if user.queries]
    if len(asked) < 2:
        return "power: no difference can be told from chance by fewer than two users with queries"
    spread = earlier_spread(Path(config.paths.runs), data.task.name, name) or Spread(
        PRIORS[name], PRIOR_QUERIES, PRIOR_SOURCE
    )
    found = minimum_detectable_effect(spread, asked, config.evaluation.confidence)
    return (
        f"power: {plural(len(asked), 'user')} find a true difference of {number(found)} "
        f"{metric_title(name)} with {100 * POWER:g} % power (two-sided "
        f"{100 * (1 - config.evaluation.confidence):.3g} %, users paired); from {spread.source}"
    )


def minimum_detectable_effect(
    spread: Spread, users: Sequence[UserHistory], confidence: float
) -> float:
    """Smallest true difference that these users find with 80% power.

    Fewer queries per user than the spread was seen with count as noise; more do not help, as it is
    not known how much of the spread is the users' own.
    """
    per_user = sum(len(user.queries) for user in users) / len(users)
    noise = max(1.0, spread.queries / per_user)
    error = spread.per_user * math.sqrt(noise / len(users))
    return detectable_difference(error, len(users), confidence)


def earlier_spread(runs: Path, task: str, metric: str) -> Spread | None:
    """The median spread of all paired differences in the results of earlier runs of a task."""
    found: dict[Path, list[tuple[float, float]]] = {}
    for path in sorted(runs.glob("*/results.jsonl")):
        if seen := list(_spreads(_rows(path), task, metric)):
            found[path] = seen
    if not found:
        return None
    every = [each for seen in found.values() for each in seen]
    return Spread(
        per_user=median(per_user for per_user, _ in every),
        queries=median(queries for _, queries in every),
        source=f"{plural(len(found), 'earlier run')} of this task",
    )


def _rows(path: Path) -> Iterable[dict[str, Any]]:
    try:
        return list(jsonlines.read(path))
    except (CdcdaError, OSError):  # a run that was damaged tells nothing
        return ()


def _spreads(
    rows: Iterable[dict[str, Any]], task: str, metric: str
) -> Iterator[tuple[float, float]]:
    """Per difference with a variance: its spread over users, and queries per user."""
    for row in rows:
        for other, differences in row.get("differences", {}).items():
            difference = differences.get(metric)
            if row.get("task") != task or difference is None or row["arm"] > other:
                continue  # each pair once
            users, limit = difference["users"], difference["minimum_detectable_effect"]
            if limit and users >= FEWEST_USERS:
                unit = detectable_difference(1.0, users, 0.95)
                seeds = max(1, len(row["seeds"]))
                yield limit / unit * math.sqrt(users), difference["queries"] / users / seeds
