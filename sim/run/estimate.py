"""``--dry-run``: what would run, and roughly what it would take. Nothing is trained or generated.

Counts of users, records, steps and replies are exact but for the kept share, which only a run can
tell. Times come from a product of the device model's own shape and type, timed for a second on the
device that would compute; they are good to a factor of two or three.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from clients.outbound import covered_count
from clients.policy import Policy
from conf.schema import Config
from lamp.dataset import LampData
from lamp.records import UserHistory
from models.shape import Shape, shape_of, shape_to_build
from sim.run import provision
from sim.run.power import planned_power
from sim.terminal import words_table
from strategy.arms import Arm, configured_arms

KEPT_SHARE = 0.4  # of the generated pairs: a guess for the estimate alone
CHARACTERS_PER_TOKEN = 4.0
# Shares of the product's rate that training and decoding reached with SmolLM2-135M (docs/LOG.md).
UTILISATION = 0.35
UTILISATION_GENERATE = 0.06
PROBE_S = 1.0
PROBE_TOKENS = 512
STEP_OVERHEAD_S = 0.012  # per optimizer step, whatever its size
MESSAGE_S = 0.005
START_S = 25.0  # imports, Ray's start and stop
BUILD_S = 170.0  # miniature models at first use
FLOPS_TRAIN, FLOPS_GENERATE = 4.0, 2.0  # per parameter of a frozen base and token
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
    rate = product_rate(config)
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
    generate_s = (
        tokens * parameters(config, "cloud") * FLOPS_GENERATE / (rate * UTILISATION_GENERATE)
    )
    base_s = _base_s(config, data, rate * UTILISATION)
    build_s = BUILD_S if config.model.build is not None else 0.0
    return Estimate(
        arms=tuple(arms),
        replies=replies,
        tokens=tokens,
        seconds=START_S + build_s + base_s + generate_s + sum(each.seconds for each in arms),
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
        f"{_memory(config, data)}\n"
        f"time, to a factor of two or three: {duration(made.seconds)}"
        + (" (170 s less once the miniature models are built)" if config.model.build else ""),
    )


def product_rate(config: Config) -> float:
    """Floating-point operations per second of one device process's matrix products.

    Timed for a second with the shape, type and number of threads of the device model's
    feed-forward part; a network whose shape only the hub knows is taken for 0.5 B parameters.
    """
    import torch  # seconds, and a dry run alone needs it here

    shape = _shape(config, "device")
    width, inner = (shape.width, shape.feed_forward) if shape else (896, 4864)
    dtype, device = getattr(torch, config.qlora.compute_dtype), config.resources.cloud_device
    threads = torch.get_num_threads()
    torch.set_num_threads(config.resources.torch_threads)
    try:
        tokens = torch.ones(PROBE_TOKENS, width, dtype=dtype, device=device)
        weights = torch.ones(width, inner, dtype=dtype, device=device)
        (tokens @ weights)[0, 0].item()
        began, best = time.perf_counter(), float("inf")
        while time.perf_counter() - began < PROBE_S:
            started = time.perf_counter()
            (tokens @ weights)[0, 0].item()  # waits for a GPU too
            best = min(best, time.perf_counter() - started)  # a busy machine must not count twice
        return 2.0 * PROBE_TOKENS * width * inner / best
    finally:
        torch.set_num_threads(threads)


def _memory(config: Config, data: LampData) -> str:
    """What a device process and the cloud's model hold; a process's own start comes on top."""
    from sim.run import memory_estimate as planned  # with PyTorch

    tokens = record_tokens(config, data.targets)
    device, cloud = _shape(config, "device"), _shape(config, "cloud")
    lines = [
        planned.memory_line(
            "a device process that trains",
            planned.device_plan(config, device, tokens) if device else None,
        )
    ]
    if any(arm.method.needs_augmentation for arm in configured_arms(config)):
        plan = planned.cloud_plan(config, cloud, tokens) if cloud else None
        lines.append(planned.memory_line("the cloud model that writes", plan))
    return "\n".join(lines)


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
    flops = steps * config.qlora.batch_size * tokens_per_record * FLOPS_TRAIN / UTILISATION
    queries = sum(len(user.queries) for user in data.targets)
    answered = tokens_per_record + config.task.max_new_tokens / UTILISATION_GENERATE
    flops += queries * answered * FLOPS_GENERATE
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


def record_tokens(config: Config, users: tuple[UserHistory, ...]) -> float:
    """Tokens of one training record, guessed from its characters."""
    texts = [len(pair.input) + len(pair.response) for user in users for pair in user.pairs]
    mean = sum(texts) / max(len(texts), 1)
    return min(config.qlora.max_seq_len, mean / CHARACTERS_PER_TOKEN + 20)


def _reply_tokens(config: Config, data: LampData) -> float:
    return min(config.augmenter.sampling.max_new_tokens, record_tokens(config, data.targets))


def parameters(config: Config, which: str) -> float:
    """Parameters of the "cloud" or the "device" model."""
    shape = _shape(config, which)
    if shape is not None:
        return float(shape.parameters)
    return KNOWN_PARAMETERS.get(getattr(config.model, which).path, 1e9)


def _shape(config: Config, which: str) -> Shape | None:
    build = config.model.build
    if build is not None:
        return shape_to_build(build.cloud if which == "cloud" else build.device, build)
    return shape_of(getattr(config.model, which), Path(config.paths.cache))


def _adapter_bytes(config: Config) -> int:
    """Float32 LoRA on all linear layers; 1.8 % of a 0.5 B model per 16 ranks."""
    shape = _shape(config, "device")
    if shape is not None:
        return 4 * shape.adapter_parameters(config.qlora.rank)
    return int(4 * 0.0178 * parameters(config, "device") * config.qlora.rank / 16)


def _base_s(config: Config, data: LampData, rate: float) -> float:
    """Seconds of M_base's tuning on the public users' records and queries."""
    if not any(arm.method.tuned and not arm.method.oracle for arm in configured_arms(config)):
        return 0.0
    found = sum(len(user.pairs) + len(user.queries) for user in data.public)
    records = min(found, config.qlora.base_max_records or found) * config.qlora.base_epochs
    size = parameters(config, "device")
    return records * record_tokens(config, data.public) * size * FLOPS_TRAIN / rate


def duration(seconds: float) -> str:
    """Write seconds as a rough duration."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
