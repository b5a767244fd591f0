"""What the audit found, said plainly: tables of what was attacked, and a sentence to each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.leakage.audit import CLOUD, FILE, SIDES
from sim.leakage.canaries import ALTERNATIVES
from sim.leakage.measure import FEWEST_OUTSIDERS, chance_exposure, exposure
from sim.report.pooling import Results
from sim.report.run_records import Run
from sim.report.tables import Cell, Table, make_table, number
from sim.statistics import Resampling, draw_weights, percentile_interval
from storage import jsonlines

CLASSES = ("shared", "unshared", "others")
COIN = 0.5


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over users with its interval; users without a value are left out.

    Attributes:
        value: Mean of the users' means.
        low: Lower end; None for fewer than two users.
        high: Upper end.
        users: Users with a value.
    """

    value: float
    low: float | None
    high: float | None
    users: int


def tables(results: Results) -> dict[str, Table | None]:
    """The tables of what was attacked; None where no audit was made."""
    rows = _rows(results.runs[0])
    return {
        "exposure": _exposure_table(rows, results.resampling),
        "membership": _membership_table(rows, results.resampling),
        "power": _power_table(rows, results.resampling),
        "who_wrote": _who_wrote_table(rows, results.resampling),
    }


def sentences(results: Results) -> list[str]:
    """What the tables say, in plain words."""
    run, rows = results.runs[0], _rows(results.runs[0])
    if not rows:
        return []
    said = list(_about_cloud(rows))
    for arm in _arms(rows):
        members = {side: _mean(rows, arm, _auc_of(side), results.resampling) for side in SIDES}
        said += [_about_adapter(arm, side, found) for side, found in members.items() if found]
    said += _about_writers(rows, results.resampling)
    if run.config.privacy.canaries:
        said.append(
            f"{run.config.privacy.canaries} canaries per user stand in D_u; they are part of the "
            "training, so scores of this run are not those of a run without them."
        )
    return said


def notes(results: Results) -> str:
    """How to read the tables."""
    run = results.runs[0]
    if not _rows(run):
        return ""
    labels = run.task.pair_labels
    others = len(labels) - 1 if labels else ALTERNATIVES
    nothing = exposure(0, [0] * ALTERNATIVES)
    return (
        "Exposure (Carlini et al., The Secret Sharer, 2019) in bits: of the cloud's texts at most "
        f"{np.log2(ALTERNATIVES + 1):.1f}, and {nothing:.2f} for a canary of which no word was "
        f"written; of an adapter at most {np.log2(others + 1):.1f}, and "
        f"{chance_exposure(others):.2f} by chance. AUC: probability that a record of the class "
        "looks more like a training record than one that no training saw; "
        f"{COIN} is a coin's. True positives: the share of members above the score that the given "
        "share of all users' outsiders exceed; outsiders of a canary are the values that it was "
        "not given. n/a: too few outsiders to say "
        f"({'; '.join(f'{rate:.1%} needs {few:,}' for rate, few in FEWEST_OUTSIDERS.items())}). "
        "Scores are log-likelihood ratios to M_base, the reference model. "
        f"Brackets: {results.resampling.level} intervals over users."
    )


def _rows(run: Run) -> list[dict[str, Any]]:
    return list(jsonlines.read(run.folder / FILE))


def _arms(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [arm for arm in dict.fromkeys(row["arm"] for row in rows) if arm != CLOUD]


def _exposure_table(rows: Sequence[Mapping[str, Any]], resampling: Resampling) -> Table | None:
    lines: list[list[Cell | str]] = []
    for arm in dict.fromkeys(row["arm"] for row in rows):
        for side in SIDES:
            found = _mean(rows, arm, _bits_of(side), resampling)
            bits = [bit for row in rows if row["arm"] == arm for bit in row["exposure"][side]]
            if found is None:
                continue
            written = [row["found"][side] for row in rows if row["arm"] == arm and "found" in row]
            seen = f"{sum(written)} of {len(bits)}" if written else ""
            what = arm if arm == CLOUD else f"adapters of {arm}"
            lines.append([what, side, str(len(bits)), _cell(found), number(max(bits)), seen])
    head = ("Attacked", "Canaries", "Number", "Exposure, bits", "Largest", "Written by the cloud")
    return make_table(head, lines, left=2) if lines else None


def _membership_table(rows: Sequence[Mapping[str, Any]], resampling: Resampling) -> Table | None:
    lines: list[list[Cell | str]] = []
    for arm in _arms(rows):
        cells = []
        for side in CLASSES:
            found = _mean(rows, arm, _auc_of(side), resampling)
            cells.append(_cell(found) if found else Cell("n/a"))
        lines.append([arm, *cells])
    head = ("Adapters of", "Shared records", "Unshared records", "Other users' records")
    return make_table(head, lines) if lines else None


def _power_table(rows: Sequence[Mapping[str, Any]], resampling: Resampling) -> Table | None:
    lines: list[list[Cell | str]] = []
    for arm in _arms(rows):
        for what in ("records", "canaries"):
            for side in SIDES:
                auc = _auc_of(side) if what == "records" else _canary_auc_of(side)
                asked = [auc, *(_tpr_of(what, rate, side) for rate in FEWEST_OUTSIDERS)]
                found = [_mean(rows, arm, value_of, resampling) for value_of in asked]
                if found[0] is None:
                    continue
                number_of = next(
                    row["outsiders"][what] for row in rows if row["arm"] == arm and "tpr" in row
                )
                cells = [_cell(each) if each else Cell("n/a") for each in found]
                lines.append([arm, f"{side} {what}", f"{number_of:,}", *cells])
    rates = [f"True positives at {rate:.1%}" for rate in FEWEST_OUTSIDERS]
    head = ("Adapters of", "Members", "Outsiders", "AUC", *rates)
    return make_table(head, lines, left=2) if lines else None


def _who_wrote_table(rows: Sequence[Mapping[str, Any]], resampling: Resampling) -> Table | None:
    lines: list[list[Cell | str]] = []
    for title, key, baseline in (
        ("the user's group", "group", "majority"),
        ("the other half of the share", "linked", "chance"),
    ):
        cells = [
            _mean(rows, CLOUD, _text_of(key, name), resampling)
            for name in (baseline, "shared", "cloud")
        ]
        if cells[0] is None:
            continue
        found = [_cell(each) if each else Cell("n/a") for each in cells]
        lines.append([title, str(cells[0].users), *found])
    head = ("Found", "Users", "Without texts", "From shared records", "From the cloud's texts")
    return make_table(head, lines, left=1) if lines else None


def _about_writers(rows: Sequence[Mapping[str, Any]], resampling: Resampling) -> list[str]:
    said = []
    for key, baseline, about, without in (
        ("group", "majority", "A user's group is guessed right", "always the most frequent group"),
        ("linked", "chance", "The two halves of a user's share are linked", "drawing one"),
    ):
        chance = _mean(rows, CLOUD, _text_of(key, baseline), resampling)
        for name, source in (("shared", "shared records"), ("cloud", "the cloud's texts")):
            found = _mean(rows, CLOUD, _text_of(key, name), resampling)
            if found is None or chance is None:
                continue
            more = found.low is not None and found.low > chance.value
            verdict = "more often than" if more else "not measurably more often than"
            said.append(
                f"{about} from {source} in {found.value:.0%} of {found.users} users, {verdict} by "
                f"{without} ({chance.value:.0%})."
            )
    return said


def _about_cloud(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    cloud = [row for row in rows if row["arm"] == CLOUD]
    said = []
    for side in SIDES:
        written = sum(row["found"][side] for row in cloud)
        total = sum(len(row["exposure"][side]) for row in cloud)
        if total:
            said.append(
                f"Of {total} {side} canaries a text of the cloud holds more words than of any of "
                f"{ALTERNATIVES} others drawn alike: {written if written else 'none'}."
            )
    return said


def _about_adapter(arm: str, side: str, found: Mean) -> str:
    if found.low is not None and found.low > COIN:
        verdict = "tell"
    elif found.low is None:
        verdict = "may tell (one user, no interval)"
    else:
        verdict = "do not measurably tell"
    return (
        f"Adapters of {arm} {verdict} {side} records from records outside the training: AUC "
        f"{number(found.value)}. They never leave the device."
    )


def _mean(
    rows: Sequence[Mapping[str, Any]],
    arm: str,
    value_of: Callable[[Mapping[str, Any]], float | None],
    resampling: Resampling,
) -> Mean | None:
    """Mean over the users of one arm who have a value."""
    own = [value_of(row) for row in rows if row["arm"] == arm]
    values = np.array([value for value in own if value is not None])
    return mean_over_users(values, resampling) if values.size else None


def mean_over_users(values: NDArray[np.float64], resampling: Resampling) -> Mean:
    """Mean of one value per user, with its interval; users are resampled."""
    replicates = draw_weights(values.size, resampling) @ values / values.size
    low, high = percentile_interval(
        float(values.mean()), replicates, values.size, resampling.confidence
    )
    return Mean(float(values.mean()), low, high, int(values.size))


def _bits_of(side: str) -> Callable[[Mapping[str, Any]], float | None]:
    return lambda row: fmean(row["exposure"][side]) if row["exposure"][side] else None


def _auc_of(side: str) -> Callable[[Mapping[str, Any]], float | None]:
    return lambda row: row["auc"].get(side)


def _canary_auc_of(side: str) -> Callable[[Mapping[str, Any]], float | None]:
    return lambda row: row.get("canary_auc", {}).get(side)


def _tpr_of(what: str, rate: float, side: str) -> Callable[[Mapping[str, Any]], float | None]:
    return lambda row: row["tpr"][what][str(rate)][side] if "tpr" in row else None


def _text_of(key: str, name: str) -> Callable[[Mapping[str, Any]], float | None]:
    return lambda row: row.get(key, {}).get(name)


def _cell(found: Mean) -> Cell:
    interval = "" if found.low is None else f"[{number(found.low)}, {number(found.high)}]"
    return Cell(number(found.value), interval)
