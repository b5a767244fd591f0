"""What a tuning shows and writes: a table per stage, the preset, the list of trials."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from rich.console import Console

from conf.errors import ConfigError
from conf.groups import FOLDER
from conf.schema import Config, TuneStage
from lamp import metrics
from lamp.dataset import LampData
from lamp.tasks import Task
from sim.report.tables import (
    Cell,
    Table,
    count,
    duration,
    estimate_cell,
    metric_head,
    number,
    to_rich,
)
from sim.report.tables import metric_title as title_of
from sim.run.manifest import commit
from sim.statistics import Resampling
from sim.tuning.grid import Choice, Setting, Trial, Value, headline
from sim.tuning.trials import trial_to_json
from storage import atomic

TITLES: dict[TuneStage, str] = {
    "base": "M_base",
    "retrieval": "retrieval (device_rag)",
    "cloud": "M_cloud",
    "adapters": "adapters (direct_ft)",
    "augmentation": "augmentation (cdcda)",
}
CHOSEN = "*"
EXPERIMENT = "experiment"  # group whose presets may set any key
GROUPS = (EXPERIMENT, "qlora", "augmenter", "filters")  # that a preset may be of


@dataclass(frozen=True, slots=True)
class Stage:
    """One finished stage.

    Attributes:
        name: Its name.
        task: Task that was scored.
        trials: All of its trials.
        choice: What the rule took; None where nothing could be chosen.
        resampling: How intervals are drawn.
    """

    name: TuneStage
    task: Task
    trials: tuple[Trial, ...]
    choice: Choice | None
    resampling: Resampling


def trial_line(trial: Trial, task: Task, resampling: Resampling) -> str:
    """One finished trial in one line, with its time."""
    settings = shown_setting(trial.setting)
    found = headline(task, trial, resampling)
    score = f"{title_of(metrics.headline(task)[0])} {number(found.value)}" if found else trial.note
    return f"{settings or 'as configured'}: {score}, {duration(trial.seconds)}"


def short_key(key: str) -> str:
    """The last part of a dotted key: "learning_rate"."""
    return key.rpartition(".")[2]


def shown_setting(setting: Setting) -> str:
    """The values of a setting with the last parts of their keys: "epochs 4, batch_size 8"."""
    return ", ".join(f"{short_key(key)} {shown(value)}" for key, value in setting.items())


def shown(value: Value) -> str:
    """A value as it is written on the command line."""
    return value if isinstance(value, str) else f"{value:g}"


def table_of(stage: Stage) -> Table:
    """The trials of a stage, the chosen one marked."""
    name, _ = metrics.headline(stage.task)
    keys = list(stage.trials[0].setting)
    shows_kept = any(trial.kept is not None for trial in stage.trials)
    head = ["", *(_heading(key) for key in keys), *(["kept"] if shows_kept else [])]
    chosen = stage.choice.chosen if stage.choice else None
    rows = []
    for trial in stage.trials:
        found = headline(stage.task, trial, stage.resampling)
        score = estimate_cell(found) if found else Cell(_note(trial.note))
        mark = Cell(CHOSEN, tone="better") if trial is chosen else Cell("")
        kept = [Cell(f"{100 * (trial.kept or 0):.1f}%")] if shows_kept else []
        values = [Cell(shown(trial.setting[key])) for key in keys]
        cells = (Cell(count(trial.steps)), score, Cell(duration(trial.seconds)))
        rows.append((mark, *values, *kept, *cells))
    return Table((*head, "steps", metric_head(name), "time"), tuple(rows), 1)


def _heading(key: str) -> str:
    return {
        "learning_rate": "rate",
        "base_learning_rate": "rate",
        "cloud_learning_rate": "rate",
        "batch_size": "batch",
    }.get(short_key(key), short_key(key).removeprefix("base_").removeprefix("cloud_"))


def _note(note: str) -> str:
    """A failure in a cell: its first words."""
    return note if len(note) <= 20 else "failed"


def print_stage(stage: Stage, console: Console) -> None:
    """Show the table of a stage, what was chosen and why, and where better may lie."""
    console.print(to_rich(table_of(stage), stacked=False))
    for line in remarks(stage):
        console.print(line, highlight=False, markup=False)
    console.print()


def remarks(stage: Stage) -> list[str]:
    """What to know about the choice."""
    choice = stage.choice
    if choice is None:
        return [
            "no setting keeps a usable share of the texts: nothing is chosen, see tune.least_kept"
        ]
    users = f"{len(choice.chosen.sums)} public users"
    lines = [f"{CHOSEN} chosen on {users}: best of {len(stage.trials)} settings"]
    if choice.chosen is not choice.best:
        error = number(choice.error)
        lines = [
            f"{CHOSEN} chosen on {users}: fewest steps within one standard error ({error}) of the "
            f"best, {shown_setting(choice.best.setting)}"
        ]
    if choice.edges:
        lines.append(
            f"warning: the best value lies at the edge of the grid: {', '.join(choice.edges)}; "
            "better ones may lie beyond it"
        )
    lines += [
        f"failed: {shown_setting(t.setting)}: {t.note}" for t in stage.trials if len(t.note) > 20
    ]
    return lines


def check_target(out: Path) -> None:
    """Refuse a place that no preset is read from, before anything is measured.

    Raises:
        ConfigError: If it is no YAML file of a group that tuning has keys for.
    """
    folder = out.absolute().parent
    if out.suffix != ".yaml" or folder.parent != FOLDER or folder.name not in GROUPS:
        raise ConfigError(
            f"tune: out must be a file <name>.yaml in conf/{EXPERIMENT}, or in "
            f"{', '.join(f'conf/{group}' for group in GROUPS[1:])} for the keys of that group "
            f"alone, got '{out}'"
        )


def use(out: Path) -> str:
    """How to use a preset."""
    return f"use it: python -m sim {out.absolute().parent.name}={out.stem}"


def write(
    out: Path, stages: Sequence[Stage], config: Config, data: LampData, words: Sequence[str]
) -> None:
    """Write the preset, and all trials beside it.

    Args:
        out: The preset's file; its folder's name says which group's keys it takes.
        stages: Finished stages.
        config: What was configured.
        data: Whom it was tuned on.
        words: Words of the command line, for the header.

    Raises:
        ConfigError: If nothing that was tuned belongs to the group.
    """
    group = out.absolute().parent.name
    values = preset(stages, group)
    if not values:
        raise ConfigError(f"tune: nothing that was tuned belongs to the group '{group}'; see out=")
    header = [
        f"Tuned on {len(data.targets)} public users of {data.task.official}, no target users.",
        "",
        f"  python -m sim tune {' '.join(words)}".rstrip(),
        "",
        *(_summary(stage) for stage in stages),
        f"Models {config.model.name}, seed {config.seed}, commit {commit()}.",
    ]
    text = "".join(f"# {line}".rstrip() + "\n" for line in header)
    package = "# @package _global_\n" if group == EXPERIMENT else ""
    atomic.write_text(out, package + text + yaml.safe_dump(values, sort_keys=False))
    rows = [trial_to_json(trial) for stage in stages for trial in stage.trials]
    lines = "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows)
    atomic.write_text(out.with_suffix(".trials.jsonl"), lines)


def preset(stages: Sequence[Stage], group: str) -> dict[str, object]:
    """The chosen values as a preset of ``group`` nests them."""
    chosen: dict[str, Value] = {}
    for stage in stages:
        if stage.choice is not None:
            chosen |= stage.choice.chosen.setting
    tree: dict[str, object] = {}
    for key, value in chosen.items():
        first, _, rest = key.partition(".")
        if group == EXPERIMENT or first == group:
            _put(tree, (key if group == EXPERIMENT else rest).split("."), value)
    return tree


def _put(tree: dict[str, object], path: Sequence[str], value: Value) -> None:
    name, *rest = path
    if not rest:
        tree[name] = value
        return
    inner = tree.setdefault(name, {})
    if isinstance(inner, dict):
        _put(inner, rest, value)


def _summary(stage: Stage) -> str:
    """One line on what a stage chose."""
    title = TITLES[stage.name]
    if stage.choice is None:
        return f"{title}: nothing chosen, no setting kept a usable share"
    cell = estimate_cell(headline(stage.task, stage.choice.chosen, stage.resampling))
    name = title_of(metrics.headline(stage.task)[0])
    return f"{title}: {name} {cell.text} {cell.detail}, {len(stage.trials)} settings tried"
