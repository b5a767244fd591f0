"""users.csv: one row per arm and user, with what was shared, trained and scored."""

from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np

from lamp import metrics
from sim.report.run_records import ArmName, Run
from sim.results import failed_users, scored_users
from storage import atomic

USER_COLUMNS = (
    "arm",
    "method",
    "user_id",
    "group",
    "ratio",
    "queries",
    "unparsed",
    "shared",
    "generated",
    "kept",
    "records",
    "synthetic",
    "steps",
    "first_loss",
    "last_loss",
    "train_seconds",
    "shortened_examples",
    "shortened_queries",
    "failed",
)


def write_users(run: Run) -> None:
    """Write users.csv into the run folder: one row per arm and user of the registry."""
    rows = [row for arm in run.arms for row in user_rows(run, arm)]
    names = list(dict.fromkeys(key for row in rows for key in row))
    columns = [*USER_COLUMNS, *(name for name in names if name not in USER_COLUMNS)]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    atomic.write_text(run.folder / "users.csv", buffer.getvalue())


def user_rows(run: Run, arm: ArmName) -> list[dict[str, Any]]:
    """What one arm did for each user; ``ratio`` is the share of an arm that shares."""
    scores, failed = user_scores(run, arm.name), failed_users(run, arm)
    users = dict.fromkeys((*run.registry, *scores))
    shortened = {answer.user: answer.shortened for answer in run.answers.get(arm.name, ())}
    return [
        {
            "arm": arm.name,
            "method": arm.method,
            "user_id": user,
            **_preference_cells(run, arm, user),
            **_training_cells(run, arm.name, user),
            **scores.get(user, {"queries": 0}),
            "shortened_queries": shortened.get(user, 0),
            "failed": int(user in failed),
        }
        for user in users
    ]


def user_scores(run: Run, arm: str) -> dict[str, dict[str, float | int]]:
    """Each user's own metrics: queries, unparsed and the task's means (no macro-F1).

    Whoever discloses a score alone has no count of unparsed answers.
    """
    found: dict[str, dict[str, float | int]] = {}
    for user, scored in scored_users(run, arm).items():
        sums, values = scored.sums, metrics.metrics_of_sums(run.task, scored.sums)
        unparsed = {} if np.isnan(sums[1]) else {"unparsed": int(sums[1])}
        found[user] = {"queries": int(sums[0]), **unparsed} | {
            name: float(value)
            for name, value in values.items()
            if name not in ("f1", "parse_failure_rate") and np.isfinite(value)
        }
    return found


def effective_ratio(run: Run, arm: ArmName, user: str) -> float | None:
    """The share that took effect: what the server asked for, as far as the user allows it."""
    preference = run.preferences.get(user)
    if preference is None:
        return None
    return preference.ratio if arm.ratio is None else min(arm.ratio, preference.ratio)


def _preference_cells(run: Run, arm: ArmName, user: str) -> dict[str, Any]:
    ratio, preference = effective_ratio(run, arm, user), run.preferences.get(user)
    if ratio is None or preference is None:
        return {}
    return {"group": preference.group, "ratio": ratio}


def _training_cells(run: Run, arm: str, user: str) -> dict[str, Any]:
    cells: dict[str, Any] = {}
    if augmented := run.augmentations.get((arm, user)):
        cells |= {name: getattr(augmented, name) for name in ("shared", "generated", "kept")}
    if adapted := run.adaptations.get((arm, user)):
        cells |= {name: getattr(adapted, name) for name in ("records", "synthetic", "steps")}
        cells["train_seconds"] = round(adapted.seconds, 3)
        cells["shortened_examples"] = adapted.shortened
        if adapted.losses:
            cells |= {"first_loss": adapted.losses[0], "last_loss": adapted.losses[-1]}
    return cells
