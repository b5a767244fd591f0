"""A run as pandas data frames: one function per frame, from the checked records of a run folder.

:data:`COLUMNS` says what every column holds and in which unit. Column names are those of the files
wherever a file has them. What is unknown is missing (NaN or None), never zero.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd

from conf.compose import to_json
from lamp import metrics
from lamp.tasks import Task
from sim.leakage.audit import FILE as LEAKAGE
from sim.profiles import draw_profiles
from sim.report.pooling import failed_users, scored_users
from sim.report.run_records import UP, Answer, ArmName, Run
from storage import jsonlines

ARM = {"arm": "method with its settings, e.g. cdcda@0.5", "method": "method"}
COLUMNS: Mapping[str, Mapping[str, str]] = {
    "answers": {
        **ARM,
        "user": "user id",
        "query": "query id; missing where a user disclosed sums only",
        "queries": "queries that the row stands for",
        "score": "accuracy (1 or 0), absolute error in stars, or ROUGE-1 F; missing for sums",
        "parsed": "whether the answer could be read",
        "gold": "index of the gold label",
        "prediction": "index of the predicted label, -1 outside the set",
        "error": "predicted minus gold stars",
        "rouge1": "ROUGE-1 F, 0 to 1",
        "rougeL": "ROUGE-L F, 0 to 1",
        "bertscore": "BERTScore F1",
        "unicode_rouge1": "ROUGE-1 F on Unicode tokens, for gold answers without a-z",
        "text": "the answer; only with evaluation.ship_predictions",
        "gold_text": "the gold answer; only with evaluation.ship_predictions",
    },
    "training": {
        **ARM,
        "user": "user id",
        "records": "records of D_u that were trained on",
        "synthetic": "synthetic pairs that were trained on",
        "steps": "optimizer steps",
        "losses": "mean loss per step, nats per scored token",
        "first_loss": "the first of them",
        "last_loss": "the last of them",
        "seconds": "wall time of the training",
        "tokens": "tokens trained on, all passes",
        "peak_memory_bytes": "what an NF4 device would need, without activations",
        "adapter_bytes": "size of the adapter",
        "shortened": "examples that were too long and lost text",
        "gate": "1 where the adapter is used, 0 where M_base answers; missing without a gate",
        "reductions": "how often memory ran out and training went on in a smaller way",
        "curve_seen": "records of a stream seen at each point of the learning curve; () without",
        "curve": "headline score there",
    },
    "augmentation": {
        **ARM,
        "user": "user id",
        "history": "records of D_u",
        "shared": "records that were shared",
        "generated": "synthetic candidates",
        "kept": "candidates that passed the filters",
        "rejected_<reason>": "candidates whose first failing gate this was",
    },
    "candidates": {
        "user": "whose record it was made from",
        "unreadable": "why the reply held no pair; missing for one that can be scored",
        "consistency": "the smaller entailment probability of the two ways, or the cosine",
        "rouge_l": "ROUGE-L F1 to the shared record's input",
        "length_ratio": "length over the shared record's, in the unit of filters.length_unit",
    },
    "ledger": {
        "user": "user id",
        "direction": "up (device to server), down, or what else the ledger notes",
        "kind": "message type, or what was handed over once",
        "arm": "arm; empty where the message served all",
        "records": "shared or kept pairs in it",
        "bytes": "serialised size",
        "redelivery": "whether it was sent again after a failure",
    },
    "users": {
        **ARM,
        "user": "user id",
        "group": "privacy group that the simulator drew",
        "device": "device profile; missing where the run has one profile",
        "ratio": "share that took effect: asked for, as far as the user allows it",
        "queries": "scored queries",
        "unparsed": "answers that could not be read",
        "shared": "records that were shared",
        "generated": "synthetic candidates",
        "kept": "kept candidates",
        "records": "records of D_u that were trained on",
        "synthetic": "synthetic pairs that were trained on",
        "steps": "optimizer steps",
        "first_loss": "loss of the first step, nats per token",
        "last_loss": "loss of the last step",
        "train_seconds": "wall time of the training",
        "shortened_examples": "training examples that lost text",
        "shortened_queries": "queries that lost text",
        "reductions": "how often memory ran out and training went on in a smaller way",
        "failed": "whether a message of this user got no good reply (1 or 0)",
        "<metric>": "the task's metrics over the user's own queries",
    },
    "leakage": {
        **ARM,
        "user": "user id",
        "kind": "whose records were attacked: shared, unshared or others (other users')",
        "canaries": "canaries of this kind",
        "exposure": "their mean exposure, bits; missing without canaries",
        "written": "of how many the cloud wrote words; missing for adapters",
        "auc": "membership inference, 0.5 is a coin's; missing for the cloud's texts",
    },
    "phases": {
        "arm": "arm; empty for what all share",
        "phase": "what was done",
        "seconds": "wall time",
    },
    "failures": {
        "arm": "arm; empty where the message served all",
        "user": "user id, or the node where nobody said whose it is",
        "phase": "message type",
        "kind": "class of the error",
        "reason": "in words of the server",
    },
    "config": {"key": "dotted configuration key", "value": "its value"},
}

_WORDS = (
    "arm method user query text gold_text direction kind group device phase reason key unreadable"
)
_COUNTS = (
    "queries gold prediction unparsed records synthetic steps tokens peak_memory_bytes "
    "adapter_bytes shortened gate history shared generated kept bytes shortened_examples "
    "shortened_queries reductions failed canaries written"
)
WORDS, WHOLE = frozenset(_WORDS.split()), frozenset(_COUNTS.split())
OBJECTS = frozenset(("losses", "curve_seen", "curve", "value"))  # tuples; values of any type


def answers_frame(run: Run) -> pd.DataFrame:
    """One row per scored query and arm, or per user where sums alone were disclosed."""
    methods = _methods(run)
    rows = [
        {
            "arm": arm,
            "method": methods.get(arm, arm),
            "user": answer.user,
            "query": answer.query,
            "queries": answer.queries,
            "score": None if answer.query is None else headline_score(run.task, answer),
            **asdict(answer.score),
            "text": answer.text,
            "gold_text": answer.gold_text,
        }
        for arm, answers in run.answers.items()
        for answer in answers
    ]
    return _frame("answers", rows)


def training_frame(run: Run) -> pd.DataFrame:
    """One row per arm and user whose adapter was trained."""
    methods, names = _methods(run), [*COLUMNS["training"]]
    rows = []
    for line in run.adaptations.values():
        row = asdict(line) | {"method": methods.get(line.arm, line.arm)}
        if line.losses:
            row |= {"first_loss": line.losses[0], "last_loss": line.losses[-1]}
        row["gate"] = None if line.gate < 0 else line.gate
        rows.append({name: row.get(name) for name in names})
    return _frame("training", rows)


def augmentation_frame(run: Run) -> pd.DataFrame:
    """One row per arm and user who was asked to share; ``kept`` and the rejections add up."""
    methods = _methods(run)
    reasons = sorted({name for line in run.augmentations.values() for name in line.rejected})
    rows = [
        {
            "arm": line.arm,
            "method": methods.get(line.arm, line.arm),
            "user": line.user,
            **{name: getattr(line, name) for name in ("history", "shared", "generated", "kept")},
            **{f"rejected_{name}": line.rejected.get(name, 0) for name in reasons},
        }
        for line in run.augmentations.values()
    ]
    return _frame("augmentation", rows)


def candidates_frame(run: Run) -> pd.DataFrame:
    """One row per synthetic candidate: what the filters judge it by."""
    unit = f"length_ratio_{run.config.filters.length_unit}"
    rows = [
        {
            "user": each.user,
            "unreadable": each.unreadable,
            "consistency": None
            if each.entails is None
            else min(each.entails, each.entailed or 0.0),
            "rouge_l": each.rouge_l,
            "length_ratio": getattr(each, unit),
        }
        for each in run.candidates
    ]
    return _frame("candidates", rows)


def ledger_frame(run: Run) -> pd.DataFrame:
    """One row per message, delivery or other entry of the ledger, in its order."""
    short = {UP: "up", "server -> device": "down"}
    rows = [
        asdict(line) | {"direction": short.get(line.direction, line.direction)}
        for line in run.crossings
    ]
    return _frame("ledger", rows)


def users_frame(run: Run) -> pd.DataFrame:
    """One row per arm and user: what was shared, trained and scored."""
    return _frame("users", [row for arm in run.arms for row in _user_rows(run, arm)])


def leakage_frame(run: Run) -> pd.DataFrame:
    """One row per attacked arm, user and kind of records; no rows where no audit was made."""
    methods = _methods(run)
    rows = [
        {
            "arm": line["arm"],
            "method": methods.get(line["arm"], line["arm"]),
            "user": line["user"],
            "kind": kind,
            "canaries": len(bits := line["exposure"].get(kind, ())),
            "exposure": fmean(bits) if bits else None,
            "written": line["found"].get(kind) if "found" in line else None,
            "auc": line["auc"].get(kind),
        }
        for line in jsonlines.read(run.folder / LEAKAGE)
        for kind in ("shared", "unshared", "others")
        if kind in line["auc"] or line["exposure"].get(kind)
    ]
    return _frame("leakage", rows)


def phases_frame(run: Run) -> pd.DataFrame:
    """One row per timed phase, in the order in which they ran."""
    rows = [{"arm": each.arm, "phase": each.phase, "seconds": each.seconds} for each in run.phases]
    return _frame("phases", rows)


def failures_frame(run: Run) -> pd.DataFrame:
    """One row per message that got no good reply."""
    return _frame("failures", [asdict(each) for each in run.failures])


def config_frame(run: Run) -> pd.DataFrame:
    """One row per dotted key of the run's configuration."""
    tree = json.loads(to_json(run.config))
    return _frame("config", [{"key": key, "value": value} for key, value in _leaves(tree)])


def headline_score(task: Task, answer: Answer) -> float:
    """One answer's headline score: right (1) or not (0), absolute error in stars, or ROUGE-1 F."""
    if task.kind == "classification":
        return float(answer.gold == answer.prediction)
    if task.kind == "rating":
        return abs(answer.error or 0.0)
    return answer.rouge1 or 0.0


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


def _user_rows(run: Run, arm: ArmName) -> list[dict[str, Any]]:
    scores, failed = user_scores(run, arm.name), failed_users(run, arm)
    devices = _devices(run)
    shortened = {answer.user: answer.shortened for answer in run.answers.get(arm.name, ())}
    return [
        {
            "arm": arm.name,
            "method": arm.method,
            "user": user,
            **_preference_cells(run, arm, user),
            "device": devices.get(user),
            **_training_cells(run, arm.name, user),
            **scores.get(user, {"queries": 0}),
            "shortened_queries": shortened.get(user, 0),
            "failed": int(user in failed),
        }
        for user in dict.fromkeys((*run.registry, *scores))
    ]


def _devices(run: Run) -> dict[str, str]:
    """Name of each user's device profile; empty where all have the same one."""
    if len(run.config.devices.profiles) == 1:
        return {}
    dealt = draw_profiles(run.registry, run.config.devices, run.config.seed)
    return {user: profile.name for user, profile in dealt.items()}


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
        cells["reductions"] = adapted.reductions
        if adapted.losses:
            cells |= {"first_loss": adapted.losses[0], "last_loss": adapted.losses[-1]}
    return cells


def _frame(name: str, rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """A frame with its documented columns first, whatever else the rows have behind them."""
    stated = [column for column in COLUMNS[name] if "<" not in column]
    further = dict.fromkeys(key for row in rows for key in row if key not in stated)
    frame = pd.DataFrame(rows, columns=[*stated, *further])
    return frame.astype({column: _type_of(column) for column in frame})


def _type_of(column: str) -> str:
    """A column's type: fixed, so that it does not depend on what a run happens to hold."""
    if column in WORDS:
        return "string"
    if column in OBJECTS:
        return "object"
    if column in WHOLE or column.startswith("rejected_"):
        return "Int64"
    return "boolean" if column in ("parsed", "redelivery") else "float64"


def _methods(run: Run) -> dict[str, str]:
    return {arm.name: arm.method for arm in run.arms}


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
