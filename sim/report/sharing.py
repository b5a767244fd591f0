"""What sharing brings, by group: records shared per user against score and gain, with intervals.

A group is an attitude that the simulator gave a user at set-up (``policies.csv``). Scores are
pooled over the group's queries; the gain is the same users' difference to the reference without
sharing, paired. Both are resampled over the group's users (:mod:`sim.statistics`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from pydantic import TypeAdapter

from lamp import metrics
from sim import statistics
from sim.report.pooling import Results, ScoredUser, scored_users
from sim.report.run_records import ArmName, Run
from sim.report.tables import (
    Cell,
    Table,
    count,
    difference_cell,
    estimate_cell,
    make_table,
    metric_head,
    metric_title,
    percent,
)
from sim.statistics import Difference, Estimate, Resampling, UserSums
from storage import jsonlines
from strategy.methods import METHODS, compared

EVERYONE = "all"


@dataclass(frozen=True, slots=True)
class Share:
    """What one group got out of one arm.

    Attributes:
        arm: The arm.
        group: Attitude; :data:`EVERYONE` for all users together.
        users: Scored users.
        records: Mean number of records that a user shared.
        part: Mean part of D_u that a user shared, 0 to 1.
        score: Headline metric, pooled over the group.
        gain: Minus the reference's, same users and queries; None where there is no reference.
    """

    arm: ArmName
    group: str
    users: int
    records: float
    part: float
    score: Estimate
    gain: Difference | None


def shares(run: Run, resampling: Resampling) -> tuple[Share, ...]:
    """Measure every sharing arm in every group, smaller ratios first."""
    arms = [arm for arm in run.arms if _shares(arm) and run.answers.get(arm.name)]
    reference = scored_users(run, compared()[0])
    return tuple(
        share
        for arm in arms
        for group, users in groups(run).items()
        if (share := _share(run, arm, group, users, reference, resampling)) is not None
    )


def groups(run: Run) -> dict[str, tuple[str, ...]]:
    """Users by group, in the order of the configuration; everyone last where there are several."""
    named: dict[str, list[str]] = {group.name: [] for group in run.config.privacy.groups}
    for user in run.registry:
        if user in run.preferences:
            named.setdefault(run.preferences[user].group, []).append(user)
    found = {group: tuple(users) for group, users in named.items() if users}
    return found if len(found) < 2 else {**found, EVERYONE: run.registry}


def sharing_table(results: Results) -> Table | None:
    """One row per sharing arm and group; None where nobody shares or groups are not known."""
    run = results.runs[0]
    found = shares(run, results.resampling)
    if not found:
        return None
    name = metrics.headline(run.task)[0]
    with_gain = any(share.gain for share in found)
    rows: list[list[Cell | str]] = []
    for share in found:
        cells: list[Cell | str] = [
            share.arm.name,
            share.group,
            str(share.users),
            f"{share.records:.1f}",
            percent(share.part, 1),
            estimate_cell(share.score),
        ]
        rows.append([*cells, *([difference_cell(name, share.gain)] if with_gain else [])])
    head = ("Method", "Group", "Users", "Records shared", "Part of D_u", metric_head(name))
    gain = (f"{metric_title(name)} minus {compared()[0]}",) if with_gain else ()
    return make_table((*head, *gain), rows, left=2)


def redactions_note(run: Run) -> str:
    """How many spans the devices redacted; "" where none was to be redacted."""
    if not run.config.privacy.redact:
        return ""
    lines = _SHARED.validate_python(list(jsonlines.read(_path(run))))
    spans = {str(line["user"]): int(line["redactions"]) for line in lines}
    fields = ", ".join(run.config.privacy.redact)
    return f"Before upload the devices redacted {count(sum(spans.values()))} spans (in: {fields})."


def _share(
    run: Run,
    arm: ArmName,
    group: str,
    users: Sequence[str],
    reference: Mapping[str, ScoredUser],
    resampling: Resampling,
) -> Share | None:
    scored = scored_users(run, arm.name)
    present = [user for user in users if user in scored]
    if not present:
        return None
    name = metrics.headline(run.task)[0]
    paired = [user for user in present if user in reference]
    sent = [(_records(run, arm, user), _history(run, arm, user)) for user in present]
    return Share(
        arm=arm,
        group=group,
        users=len(present),
        records=fmean(records for records, _ in sent),
        part=fmean(records / history if history else 0.0 for records, history in sent),
        score=statistics.estimate(_sums(run, scored, present), resampling)[name],
        gain=statistics.compare(
            _sums(run, scored, paired), _sums(run, reference, paired), resampling
        ).get(name)
        if paired
        else None,
    )


def _sums(run: Run, scored: Mapping[str, ScoredUser], users: Sequence[str]) -> UserSums:
    return statistics.make_user_sums(run.task, [{user: scored[user].sums for user in users}])


def _shares(arm: ArmName) -> bool:
    return arm.method in METHODS and METHODS[arm.method].downloads


def _records(run: Run, arm: ArmName, user: str) -> int:
    line = run.augmentations.get((arm.name, user))
    return line.shared if line else 0


def _history(run: Run, arm: ArmName, user: str) -> int:
    return next(_histories(run, arm, user), 0)


def _histories(run: Run, arm: ArmName, user: str) -> Iterator[int]:
    """Length of D_u as the device told it; an arm that trains with another tells it there."""
    for name in (arm.name, *(each.name for each in run.arms)):
        if line := run.adaptations.get((name, user)):
            yield line.records


def _path(run: Run) -> Path:
    return run.folder / "shares.jsonl"


_SHARED = TypeAdapter(list[dict[str, str | int]])
