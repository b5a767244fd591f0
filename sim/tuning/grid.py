"""What a tuning tries and how it chooses: settings, trials, the rule. Pure functions.

The rule, one for every stage: the best pooled headline metric over the pseudo-targets; among the
settings whose paired difference to it lies within one standard error of that difference, the one
with the fewest optimizer steps (Breiman et al. 1984 take the standard error of the best; users
differ more than settings do, so the paired one is the sharper ruler).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from conf.checks import THRESHOLD_OF_JUDGE
from conf.errors import RunError
from conf.schema import Config, TuneStage
from lamp import metrics
from lamp.tasks import Task
from sim.statistics import (
    Estimate,
    Resampling,
    UserSums,
    difference_error,
    estimate,
    make_user_sums,
)

Value = float | int | str
Setting = Mapping[str, Value]  # dotted key of the configuration -> value

ORDER: tuple[TuneStage, ...] = ("base", "retrieval", "cloud", "adapters", "augmentation")
KEYS: dict[TuneStage, dict[str, str]] = {  # key of the grid -> key that it tries values for
    "base": {
        "base_learning_rates": "qlora.base_learning_rate",
        "base_epochs": "qlora.base_epochs",
        "base_batch_sizes": "qlora.base_batch_size",
    },
    "retrieval": {"rag_items": "evaluation.rag_items"},
    "cloud": {
        "cloud_learning_rates": "qlora.cloud_learning_rate",
        "cloud_epochs": "qlora.cloud_epochs",
        "cloud_batch_sizes": "qlora.cloud_batch_size",
    },
    "adapters": {
        "learning_rates": "qlora.learning_rate",
        "epochs": "qlora.epochs",
        "batch_sizes": "qlora.batch_size",
    },
    "augmentation": {
        "prompts": "augmenter.prompt",
        "temperatures": "augmenter.sampling.temperature",
        "eps_scf": "filters.eps_scf",
        "eps_embedding": "filters.eps_embedding",
        "eps_tdf": "filters.eps_tdf",
    },
}
THRESHOLDS = "filters."  # keys that need no new texts begin so
TIE = 1e-12


@dataclass(frozen=True, slots=True)
class Trial:
    """What one setting came to.

    Attributes:
        stage: Stage that it belongs to.
        setting: The values tried.
        sums: Per pseudo-target what :func:`lamp.metrics.sums` gives; empty where nothing was
            scored.
        steps: Optimizer steps, of all pseudo-targets together for adapters.
        seconds: Wall time when it was measured.
        kept: Share of the generated pairs that the filters kept; None where none are generated.
        note: Why there is no score; "" where there is one.
    """

    stage: TuneStage
    setting: Setting
    sums: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    steps: int = 0
    seconds: float = 0.0
    kept: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """What the rule takes of a stage.

    Attributes:
        best: Trial with the best headline metric.
        chosen: Trial that is taken.
        error: Standard error of their difference; None where they are the same trial, or where
            there is no variance to judge by.
        edges: Keys whose best value is the smallest or the largest of those tried.
    """

    best: Trial
    chosen: Trial
    error: float | None
    edges: tuple[str, ...]


def grid(config: Config, stage: TuneStage) -> list[Setting]:
    """All settings of a stage, the last key varying fastest; a single empty one for an empty grid.

    An empty list of the grid leaves its key as it is configured, and out of the settings.
    """
    tried = {
        key: values
        for name, key in keys_of(config, stage).items()
        if (values := tuple(dict.fromkeys(getattr(config.tune, name))))
    }
    return [dict(zip(tried, values, strict=True)) for values in product(*tried.values())]


def keys_of(config: Config, stage: TuneStage) -> dict[str, str]:
    """The stage's part of :data:`KEYS` without the threshold of the judge that is not asked."""
    used = THRESHOLD_OF_JUDGE[config.filters.judge]
    unread = set(THRESHOLD_OF_JUDGE.values()) - {used}
    return {name: key for name, key in KEYS[stage].items() if name not in unread}


def applied(config: Config, setting: Setting) -> Config:
    """The configuration with the values of ``setting``."""
    for key, value in setting.items():
        config = _with(config, key.split("."), value)
    return config


def _with(record: Any, path: Sequence[str], value: Value) -> Any:
    name, *rest = path
    if not is_dataclass(record) or name not in {each.name for each in fields(record)}:
        raise KeyError(name)
    inner = _with(getattr(record, name), rest, value) if rest else value
    return replace(record, **{name: inner})  # type: ignore[type-var]


def user_sums(task: Task, trial: Trial) -> UserSums:
    """A trial's sums in the form of :mod:`sim.statistics`."""
    return make_user_sums(
        task, [{user: np.asarray(own, dtype=np.float64) for user, own in trial.sums.items()}]
    )


def headline(task: Task, trial: Trial, resampling: Resampling) -> Estimate | None:
    """A trial's headline metric with its interval over pseudo-targets; None without a score."""
    if not trial.sums:
        return None
    return estimate(user_sums(task, trial), resampling).get(metrics.headline(task)[0])


def choose(task: Task, trials: Sequence[Trial], resampling: Resampling) -> Choice:
    """Choose among the trials of one stage by the rule above.

    Raises:
        RunError: If none has a score.
    """
    scored = {
        place: found.value
        for place, trial in enumerate(trials)
        if (found := headline(task, trial, resampling)) is not None
    }
    if not scored:
        notes = sorted({trial.note for trial in trials if trial.note})
        raise RunError(
            f"tune: no setting of the stage '{trials[0].stage}' could be scored "
            f"({'; '.join(notes) or 'no queries'}); widen the grid under tune.*"
        )
    sign = 1 if metrics.headline(task)[1] else -1
    top = max(sign * value for value in scored.values())
    tied = [place for place, value in scored.items() if sign * value >= top - TIE]
    best = min(tied, key=lambda place: (trials[place].steps, place))
    errors = {
        place: error
        for place in scored
        if (error := _within(task, trials[place], trials[best], resampling)) is not None
    }
    chosen = min(errors, key=lambda place: (trials[place].steps, -sign * scored[place], place))
    return Choice(
        best=trials[best],
        chosen=trials[chosen],
        error=errors[chosen] if chosen != best else None,
        edges=edges(trials[best].setting, [trial.setting for trial in trials]),
    )


def _within(task: Task, trial: Trial, best: Trial, resampling: Resampling) -> float | None:
    """The standard error of the difference to the best where it is no smaller than that; else None.

    Trials with the same scores for every user have no variance: there it is 0.
    """
    name, _ = metrics.headline(task)
    first, second = user_sums(task, trial), user_sums(task, best)
    difference = abs(_value(first, name, resampling) - _value(second, name, resampling))
    error = difference_error(first, second, name, resampling) or 0.0
    return error if difference <= error + TIE else None


def _value(sums: UserSums, name: str, resampling: Resampling) -> float:
    return estimate(sums, resampling)[name].value


def edges(setting: Setting, tried: Iterable[Setting]) -> tuple[str, ...]:
    """Keys whose value is the smallest or the largest of several tried: better may lie beyond."""
    values: dict[str, set[Value]] = {}
    for each in tried:
        for key, value in each.items():
            values.setdefault(key, set()).add(value)
    return tuple(
        key
        for key, value in setting.items()
        if not isinstance(value, str)
        and len(values[key]) > 1
        and value in (min(values[key], key=float), max(values[key], key=float))
    )
