"""``--dry-run``: what would run, and roughly what it would take. Nothing is trained or generated.

Counts of users, records, steps and replies are exact but for the kept share, which only a run can
tell; times come from a matrix product timed on this machine and are good to a factor of two or
three.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from clients.outbound import covered_count
from clients.policy import Policy
from conf.schema import BuildConfig, Config, TransformerSize
from lamp.dataset import LampData
from lamp.records import UserHistory
from models.shape import shape_of
from sim import provision
from sim.power import planned_power
from sim.terminal import words_table
from strategy.methods import Arm, configured_arms

KEPT_SHARE = 0.4  # of the generated pairs: a guess for the estimate alone
CHARACTERS_PER_TOKEN = 4.0
UTILISATION = 0.25  # of the matrix product's rate that small batches reach
STEP_OVERHEAD_S = 0.012  # per optimizer step, whatever its size
MESSAGE_S = 0.005
START_S = 25.0  # imports, Ray's start and stop
BUILD_S = 170.0  # miniature models at first use
FLOPS_TRAIN, FLOPS_GENERATE = 6.0, 2.0  # per parameter and token
KNOWN_PARAMETERS = {
    "Qwen/Qwen2.5-0.5B-Instruct": 0.494e9,
    "Qwen/Qwen2.5-1.5B-Instruct": 1.54e9,
    "Qwen/Qwen2.5-3B-Instruct": 3.09e9,
    "Qwen/Qwen2.5-7B-Instruct": 7.62e9,
}
GIB, MIB = 1 << 30, 1 << 20


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
    """What a run would take."""

    arms: tuple[ArmEstimate, ...]
    replies: int
    tokens: int
    seconds: float
    disk_bytes: int


def estimate(config: Config, data: LampData) -> Estimate:
    """Count what would be done and guess the time."""
    rate = matrix_rate() * UTILISATION
    covered = _covered_by_arm(config, data)
    trained: set[str] = set()  # arms with the same adapter train it once
    arms = []
    for arm in configured_arms(config):
        trains = arm.method.adapts and arm.adapter not in trained
        arms.append(_estimate_arm(config, data, arm, covered[arm.name], rate, trains))
        trained.add(arm.adapter)
    replies = max((each.replies for each in arms), default=0)
    if config.augmenter.file is not None:
        replies = 0
    tokens = int(replies * _reply_tokens(config, data))
    generate_s = tokens * parameters(config, "cloud") * FLOPS_GENERATE / rate
    build_s = BUILD_S if config.model.build is not None else 0.0
    return Estimate(
        arms=tuple(arms),
        replies=replies,
        tokens=tokens,
        seconds=START_S + build_s + generate_s + sum(each.seconds for each in arms),
        disk_bytes=len(trained - {""}) * len(data.targets) * _adapter_bytes(config),
    )


def print_estimate(config: Config, data: LampData, console: Console) -> None:
    """Show the estimate as a table."""
    made = estimate(config, data)
    numbers = ("records", "shared", "replies", "optimizer steps", "time")
    table = words_table("What would run", ("arm",), numbers)
    for each in made.arms:
        cells = (each.records, each.shared, each.replies, each.steps)
        table.add_row(each.arm.name, *(f"{cell:,}" for cell in cells), duration(each.seconds))
    console.print(table)
    for note in data.notes:
        console.print(f"note: {note}")
    console.print(
        f"{len(data.targets)} target users, {len(data.public)} public users, "
        f"{sum(len(user.queries) for user in data.targets)} queries\n"
        f"{planned_power(config, data)}\n"
        f"generated at most: {made.replies:,} replies, about {made.tokens:,} tokens "
        "(0 where the cache has them)\n"
        f"adapters on disk: {made.disk_bytes / MIB:,.1f} MiB in {Path(config.paths.runs)}\n"
        f"time, to a factor of two or three: {duration(made.seconds)}"
        + (" (170 s less once the miniature models are built)" if config.model.build else ""),
    )


def matrix_rate(size: int = 768, repeats: int = 3) -> float:
    """Floating-point operations per second of a float32 matrix product on this machine."""
    matrix = np.ones((size, size), dtype=np.float32)
    matrix @ matrix
    best = float("inf")  # a busy machine must not make the estimate of a night of an hour
    for _ in range(repeats):
        started = time.perf_counter()
        matrix @ matrix
        best = min(best, time.perf_counter() - started)
    return 2.0 * size**3 / best


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
    config: Config, data: LampData, arm: Arm, covered: dict[str, int], rate: float, trains: bool
) -> ArmEstimate:
    tokens_per_record = record_tokens(config, data.targets)
    added = _added_per_record(arm, config)
    steps = sum(
        _steps(config, arm, len(user.pairs) + added * covered[user.user_id])
        for user in data.targets
        if trains
    )
    flops = steps * config.qlora.batch_size * tokens_per_record * FLOPS_TRAIN
    queries = sum(len(user.queries) for user in data.targets)
    flops += queries * tokens_per_record * FLOPS_GENERATE
    workers = max(1, (config.resources.num_cpus or 2) / config.resources.client_cpus)
    size = parameters(config, arm.method.answers)
    seconds = (flops * size / rate + steps * STEP_OVERHEAD_S) / workers
    shared = sum(covered.values()) if arm.method.needs_shares else 0
    return ArmEstimate(
        arm=arm,
        records=sum(len(user.pairs) for user in data.targets),
        shared=shared,
        replies=shared * (arm.k or config.augmenter.k) if arm.method.needs_augmentation else 0,
        steps=steps,
        seconds=seconds + 2 * len(data.targets) * MESSAGE_S,
    )


def _added_per_record(arm: Arm, config: Config) -> float:
    """Training records that one covered record brings beside itself."""
    if arm.method.needs_augmentation:
        share = arm.filters(config.filters).keep_share or KEPT_SHARE
        return share * (arm.k or config.augmenter.k)
    return (arm.k or config.augmenter.k) if arm.method.added in ("copies", "eda") else 0


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


def record_tokens(config: Config, users: tuple[UserHistory, ...]) -> float:
    """Tokens of one training record, guessed from its characters."""
    texts = [len(pair.input) + len(pair.response) for user in users for pair in user.pairs]
    mean = sum(texts) / max(len(texts), 1)
    return min(config.qlora.max_seq_len, mean / CHARACTERS_PER_TOKEN + 20)


def _reply_tokens(config: Config, data: LampData) -> float:
    return min(config.augmenter.sampling.max_new_tokens, record_tokens(config, data.targets))


def parameters(config: Config, which: str) -> float:
    """Parameters of the "cloud" or the "device" model."""
    if config.model.build is not None:
        return _built_parameters(config.model.build, which)
    model = getattr(config.model, which)
    shape = shape_of(model, Path(config.paths.cache))
    return float(shape.parameters) if shape else KNOWN_PARAMETERS.get(model.path, 1e9)


def _built_parameters(build: BuildConfig, which: str) -> float:
    size: TransformerSize = build.cloud if which == "cloud" else build.device
    layer = 4 * size.width**2 + 3 * size.width * size.feed_forward
    return float(size.layers * layer + build.vocabulary * size.width)


def _adapter_bytes(config: Config) -> int:
    """Float32 LoRA on all linear layers; 1.8 % of a 0.5 B model per 16 ranks."""
    if config.model.build is not None:
        size = config.model.build.device
        per_layer = config.qlora.rank * (8 * size.width + 3 * (size.width + size.feed_forward))
        return 4 * size.layers * per_layer
    return int(4 * 0.0178 * parameters(config, "device") * config.qlora.rank / 16)


def duration(seconds: float) -> str:
    """Write seconds as a rough duration."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
