"""``python -m sim tune --dry-run``: the grid, and roughly what it would take."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from rich.console import Console
from rich.table import Table

from conf.schema import Config, TuneStage
from lamp.dataset import LampData
from lamp.records import UserHistory
from sim.run.counts import duration, public_records, record_tokens
from sim.run.estimate import measured
from sim.run.probe import Speed
from sim.tuning.grid import ORDER, THRESHOLDS, Setting, applied, grid, keys_of
from sim.tuning.output import TITLES, shown


@dataclass(frozen=True, slots=True)
class StageEstimate:
    """What one stage would do.

    Attributes:
        name: The stage.
        settings: Its grid.
        steps: Optimizer steps of all settings.
        replies: Texts that the cloud would write.
        seconds: A guess.
    """

    name: TuneStage
    settings: tuple[Setting, ...]
    steps: int
    replies: int
    seconds: float


def estimate(config: Config, data: LampData, speeds: dict[str, Speed]) -> list[StageEstimate]:
    """Count what each stage would do and guess its time.

    The augmentation counts an adapter for every setting as if nothing were kept.

    Args:
        config: The run.
        data: With pseudo-targets in the place of target users.
        speeds: Of the "device" and of the "cloud" model, as far as a stage works with them.
    """
    users = data.targets
    found = []
    for name in ORDER:
        if name in config.tune.stages:
            settings = tuple(grid(config, name))
            steps = [_work(applied(config, each), name, users, data) for each in settings]
            replies = _replies(config, name, users)
            found.append(
                StageEstimate(
                    name,
                    settings,
                    sum(steps_of for steps_of, _ in steps),
                    replies,
                    sum(records for _, records in steps)
                    * record_tokens(config, users)
                    * speeds["cloud" if name == "cloud" else "device"].train_s
                    + _answering_s(config, name, users, len(settings), replies, speeds),
                )
            )
    return found


def _work(
    config: Config, name: TuneStage, users: tuple[UserHistory, ...], data: LampData
) -> tuple[int, int]:
    """Optimizer steps and records of one setting."""
    qlora = config.qlora
    if name in ("adapters", "augmentation"):
        steps = sum(-(-len(user.pairs) // qlora.batch_size) for user in users) * qlora.epochs
        return steps, sum(len(user.pairs) for user in users) * qlora.epochs
    epochs, batch = qlora.base_epochs, qlora.base_batch_size
    if name == "cloud":
        epochs, batch = qlora.cloud_epochs or epochs, qlora.cloud_batch_size or batch
    if name == "retrieval" and not qlora.base_rag:
        return 0, 0  # the M_base of the stage before answers
    records = public_records(config, data)
    return -(-records // batch) * epochs, records * epochs


def _needs_cloud(config: Config) -> bool:
    return not {"cloud", "augmentation"}.isdisjoint(config.tune.stages)


def _replies(config: Config, name: TuneStage, users: tuple[UserHistory, ...]) -> int:
    if name != "augmentation":
        return 0
    texts = prod(
        max(1, len(getattr(config.tune, grid_key)))
        for grid_key, key in keys_of(config, name).items()
        if not key.startswith(THRESHOLDS)
    )
    return texts * config.augmenter.k * sum(len(user.pairs) for user in users)


def _answering_s(
    config: Config,
    name: TuneStage,
    users: tuple[UserHistory, ...],
    settings: int,
    replies: int,
    speeds: dict[str, Speed],
) -> float:
    """Seconds of the texts that the cloud writes, and of the queries of every setting."""
    queries, tokens = (
        settings * sum(len(user.queries) for user in users),
        record_tokens(config, users),
    )
    speed = speeds["cloud" if name == "cloud" else "device"]
    seconds = speed.answering_s(queries, tokens, config.task.max_new_tokens)
    if replies:
        seconds += speeds["cloud"].answering_s(replies, tokens, tokens)
    return seconds


def print_estimate(config: Config, data: LampData, console: Console) -> None:
    """Show the grid and the estimate."""
    stages = estimate(config, data, measured(config, data, cloud=_needs_cloud(config)))
    table = Table(title="What would be tried", title_justify="left")
    for heading in ("stage", "settings", "optimizer steps", "replies", "time"):
        table.add_column(heading, justify="left" if heading == "stage" else "right")
    for stage in stages:
        cells = (len(stage.settings), stage.steps, stage.replies)
        table.add_row(TITLES[stage.name], *(f"{cell:,}" for cell in cells), duration(stage.seconds))
    console.print(table)
    for stage in stages:
        for grid_key, key in keys_of(config, stage.name).items():
            if values := getattr(config.tune, grid_key):
                console.print(f"  {key}: {', '.join(map(shown, values))}", highlight=False)
    records = sum(len(user.pairs) for user in data.targets)
    console.print(
        f"{len(data.targets)} pseudo-targets with {records:,} records, {len(data.public)} public "
        f"users besides; {len(data.skipped)} users with longer histories are not looked at\n"
        f"time, to a factor of two or three: {duration(sum(each.seconds for each in stages))} "
        "on a machine that is idle, less with "
        "bfloat16 instructions; 0 for what was measured before",
        highlight=False,
    )
