"""``--dry-run``: what would run, and roughly what it would take. Nothing is trained or generated.

Counts of users, records, steps and replies are exact but for the kept share, which only a run can
tell. Times come from networks of the models' own shapes, timed for a second or two on the device
that would compute (:mod:`sim.run.probe`); they are good to a factor of two or three.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from clients.outbound import covered_count
from clients.policy import Policy
from conf.schema import Config
from lamp.dataset import LampData
from sim.run import cards, provision
from sim.run.counts import (
    adapter_bytes,
    duration,
    known_shape,
    record_tokens,
    reply_tokens,
    shape,
)
from sim.run.memory_estimate import CARDS, held, memory_lines
from sim.run.placement import actors
from sim.run.power import planned_power
from sim.run.probe import Speed, measure
from sim.run.times import Part, needs_cloud, parts
from sim.terminal import words_table
from strategy.arms import Arm, configured_arms

KEPT_SHARE = 0.4  # of the generated pairs: a guess for the estimate alone
MESSAGE_S = 0.005
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class ArmEstimate:
    """One arm of the run."""

    arm: Arm
    records: int
    shared: int
    replies: int
    steps: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run would take.

    Attributes:
        arms: The arms.
        beside: What stands beside them.
        replies: Texts of the cloud model.
        tokens: Tokens of these.
        disk_bytes: Adapters on disk.
    """

    arms: tuple[ArmEstimate, ...]
    beside: tuple[Part, ...]
    replies: int
    tokens: int
    disk_bytes: int

    @property
    def seconds(self) -> float:
        """All of it."""
        return sum(arm.seconds for arm in self.arms) + sum(part.seconds for part in self.beside)


def estimate(config: Config, data: LampData, speeds: dict[str, Speed]) -> Estimate:
    """Count what would be done and guess the time.

    Args:
        config: The run.
        data: Its data.
        speeds: Of the "device" model, and of the "cloud" model where one works.
    """
    covered = _covered_by_arm(config, data)
    trained: set[str] = set()  # arms with the same adapter train it once
    arms = []
    for arm in configured_arms(config):
        trains = arm.method.adapts and arm.adapter not in trained
        arms.append(_estimate_arm(config, data, arm, covered[arm.name], speeds, trains))
        trained.add(arm.adapter)
    replies = max((each.replies for each in arms), default=0)
    if config.augmenter.file is not None:
        replies = 0
    shared = max((each.shared for each in arms), default=0)
    return Estimate(
        arms=tuple(arms),
        beside=tuple(parts(config, data, replies, shared, speeds)),
        replies=replies,
        tokens=int(replies * reply_tokens(config, data)),
        disk_bytes=len(trained - {""}) * len(data.targets) * adapter_bytes(config),
    )


def measured(config: Config, data: LampData, *, cloud: bool) -> dict[str, Speed]:
    """How fast the device model works in a device's process, and the cloud model where asked."""
    import torch

    tokens, resources = record_tokens(config, data.targets), config.resources
    before = torch.get_num_threads()
    torch.set_num_threads(resources.torch_threads)
    try:
        found = {
            "device": measure(
                shape(config, "device"),
                config.qlora,
                dtype=config.qlora.compute_dtype,
                device="cuda" if resources.client_gpus else "cpu",
                tokens=tokens,
                batch=config.evaluation.batch_size,
            )
        }
        if cloud:
            torch.set_num_threads(before)  # one process, before the devices work
            found["cloud"] = measure(
                shape(config, "cloud"),
                config.qlora,
                dtype=config.model.cloud.dtype,
                device=resources.cloud_device,
                tokens=tokens,
                batch=config.augmenter.batch_size,
            )
        return found
    finally:
        torch.set_num_threads(before)


def print_estimate(config: Config, data: LampData, console: Console) -> None:
    """Show the estimate as tables."""
    here = gpus_are_here(config)
    if here:
        speeds = measured(config, data, cloud=needs_cloud(config))
    else:
        speeds = cards.speeds(config, data, CARDS[0])
    made = estimate(config, data, speeds)
    numbers = ("records", "shared", "replies", "optimizer steps", "time")
    table = words_table("What would run", ("arm",), numbers)
    for each in made.arms:
        cells = (each.records, each.shared, each.replies, each.steps)
        table.add_row(each.arm.name, *(f"{cell:,}" for cell in cells), duration(each.seconds))
    console.print(table)
    beside = words_table("Beside the arms", ("what",), ("time",))
    for part in made.beside:
        beside.add_row(part.name, duration(part.seconds))
    console.print(beside)
    for note in data.notes:
        console.print(f"note: {note}")
    how = "to a factor of two or three" if here else f"as on GPUs of {CARDS[0]} GiB, none is here"
    console.print(
        f"{len(data.targets)} target users, {len(data.public)} public users, "
        f"{sum(len(user.queries) for user in data.targets)} queries\n"
        f"{planned_power(config, data)}\n"
        f"generated at most: {made.replies:,} replies, about {made.tokens:,} tokens "
        "(0 where the cache has them)\n"
        f"adapters on disk: {made.disk_bytes / MIB:,.1f} MiB in {Path(config.paths.runs)}\n"
        f"{_memory(config, data)}\n"
        f"time, {how}: {duration(made.seconds)}; less for what the cache has"
    )
    for card in card_hours(config, data):
        console.print(cards.line(card))


def gpus_are_here(config: Config) -> bool:
    """Whether this process sees a GPU, or the run wants none."""
    import torch

    wanted = config.resources.client_gpus > 0 or config.resources.cloud_device != "cpu"
    return not wanted or torch.cuda.is_available()


def card_hours(config: Config, data: LampData) -> list[cards.CardHours]:
    """What the run would take of one GPU alone, for each size; nothing for the miniatures."""
    if config.model.build is not None:
        return []
    alone = replace(config, resources=replace(config.resources, backend="inline"))
    parts = held(config, data, known_shape(config, "device"), known_shape(config, "cloud"))
    return [
        cards.on_card(gib, estimate(alone, data, cards.speeds(config, data, gib)).seconds, parts)
        for gib in CARDS
    ]


def _memory(config: Config, data: LampData) -> str:
    """What each process holds; a process's own start comes on top."""
    device, cloud = known_shape(config, "device"), known_shape(config, "cloud")
    return "\n".join(memory_lines(config, data, device, cloud, actors(config.resources)))


def _covered_by_arm(config: Config, data: LampData) -> dict[str, dict[str, int]]:
    """Per arm and user the records that consent covers, whether they are shared or stay."""
    preferences = provision.draw_preferences(
        [user.user_id for user in data.targets], config.privacy, config.seed
    )
    return {
        arm.name: {
            user.user_id: covered_count(
                arm.asked_ratio, Policy(preferences[user.user_id].ratio), len(user.pairs)
            )
            if arm.method.depends_on_ratio
            else 0
            for user in data.targets
        }
        for arm in configured_arms(config)
    }


def _estimate_arm(
    config: Config,
    data: LampData,
    arm: Arm,
    covered: dict[str, int],
    speeds: dict[str, Speed],
    trains: bool,
) -> ArmEstimate:
    tokens_per_record = record_tokens(config, data.targets)
    added = _added_per_record(arm, config)
    steps = sum(
        _steps(config, arm, len(user.pairs) + added * covered[user.user_id])
        for user in data.targets
        if trains
    )
    speed, tokens = speeds[arm.method.answers], config.task.max_new_tokens
    workers = 1 if arm.method.oracle else actors(config.resources)
    seconds = steps * config.qlora.batch_size * tokens_per_record * speed.train_s
    seconds += sum(
        speed.answering_s(len(user.queries), tokens_per_record, tokens) for user in data.targets
    )
    shared = sum(covered.values()) if arm.method.needs_shares else 0
    return ArmEstimate(
        arm=arm,
        records=sum(len(user.pairs) for user in data.targets),
        shared=shared,
        replies=shared * (arm.k or config.augmenter.k) if arm.method.needs_augmentation else 0,
        steps=steps,
        seconds=seconds / workers + 2 * len(data.targets) * MESSAGE_S,
    )


def _added_per_record(arm: Arm, config: Config) -> float:
    """Training records that one covered record brings beside itself."""
    if arm.method.needs_augmentation:
        share = arm.filters(config.filters).keep_share or KEPT_SHARE
        return share * (arm.k or config.augmenter.k)
    return (arm.k or config.augmenter.k) if arm.method.local != "nothing" else 0


def _steps(config: Config, arm: Arm, records: float) -> int:
    if arm.method.streaming is not None:
        return _stream_steps(config, arm.method.streaming.synthesis, int(records))
    batches = -(-int(records) // config.qlora.batch_size)
    if arm.method.federated:
        return batches * config.baselines.fedavg_rounds * config.baselines.fedavg_epochs
    return batches * config.qlora.epochs


def _stream_steps(config: Config, synthesis: bool, records: int) -> int:
    """Steps of a device that trains on its buffer after every chunk; every text is kept."""
    stream = config.stream
    seen = min(records, stream.dialogues or records)
    per_record = 1 + (stream.sets if synthesis else 0)
    trained = [
        min(stream.bins, min(place + stream.every, seen)) * per_record
        for place in range(0, seen, stream.every)
    ]
    return config.qlora.epochs * sum(-(-each // config.qlora.batch_size) for each in trained)
