"""What a run would take on one GPU that is not here, of 24 and of 80 GiB: a part of ``--dry-run``.

Speeds are scaled from what an H200 took at the shape of Qwen2.5-0.5B (benchmarks/RESULTS.md,
gpu_adaptation): an optimizer step of 1,536, 12,288 and 23,040 tokens took .26, .58 and .83 s, which
is .22 s for 24 blocks, mostly launches of kernels, and 26.5 microseconds a token; a decoder's step
took .76 ms a block. What is launched takes as long on every card; what is computed goes by the
card's memory bandwidth. One process has the whole card. Good to a factor of three.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from conf.schema import Config
from lamp.dataset import LampData
from models import memory
from models.shape import Shape
from sim.run.counts import record_tokens, shape
from sim.run.memory_estimate import BYTES, CARDS, GIB, Held
from sim.run.probe import Speed

LAUNCH_S = 0.22 / 24  # of a block, in each optimizer step
TOKEN_S = 26.5e-6  # of a trained token
WEIGHTS = 357_898_112  # of the network that was measured, without its embedding
MEASURED_BANDWIDTH = 4.8e12  # bytes a second of an H200
STEP_S = 0.76e-3  # of a block, for a token of every prompt of a batch
BANDWIDTHS = dict(zip(CARDS, (1.0e12, 2.0e12), strict=True))  # of an RTX 4090, of an A100
MOST_USERS = 32  # that train together on a GPU (sim/run/placement.py)


@dataclass(frozen=True, slots=True)
class CardHours:
    """One card.

    Attributes:
        gib: Its memory.
        hours: Of one such card.
        largest: The part of the run that takes most of its memory; None where no shape is known.
        refused: The parts that it does not hold.
    """

    gib: int
    hours: float
    largest: Held | None
    refused: tuple[Held, ...]


def speeds(config: Config, data: LampData, gib: int) -> dict[str, Speed]:
    """How fast the device and the cloud model would work on a card of ``gib`` GiB."""
    tokens, qlora = record_tokens(config, data.targets), config.qlora
    own, cloud = shape(config, "device"), shape(config, "cloud")
    itemsize = BYTES[qlora.compute_dtype]
    batch = qlora.batch_size * tokens
    fitting = gib * GIB / 2 / (batch * memory.token_bytes(own, itemsize, int(tokens)))
    users = max(1, min(MOST_USERS, config.users, int(fitting)))
    cloud_records = qlora.cloud_batch_size or qlora.base_batch_size
    return {
        "device": _speed(own, gib, itemsize, users * batch, config.evaluation.batch_size),
        "cloud": _speed(
            cloud,
            gib,
            BYTES[config.model.cloud.dtype],
            cloud_records * tokens,
            config.augmenter.batch_size,
        ),
    }


def _speed(shape: Shape, gib: int, itemsize: int, step_tokens: float, prompts: int) -> Speed:
    """``step_tokens`` are trained at once, ``prompts`` answered at once."""
    tables = shape.vocabulary * shape.width * (1 if shape.tied else 2)
    weights, bandwidth = shape.parameters - tables, BANDWIDTHS[gib]
    computed = TOKEN_S * weights / WEIGHTS * MEASURED_BANDWIDTH / bandwidth
    return Speed(
        train_s=LAUNCH_S * shape.layers / step_tokens + computed,
        read_s=computed / 2,  # training goes forward and back over a frozen base
        write_s=STEP_S * shape.layers + shape.parameters * itemsize / bandwidth,
        batch=prompts,
    )


def on_card(gib: int, seconds: float, held: Iterable[Held]) -> CardHours:
    """Say what a run of ``seconds`` on a card means, whose parts hold ``held``."""
    known = [each for each in held if each.plan is not None]
    return CardHours(
        gib,
        seconds / 3600,
        max(known, key=lambda each: each.bytes, default=None),
        tuple(each for each in known if each.bytes > gib * GIB),
    )


def total(runs: Iterable[CardHours]) -> CardHours:
    """Return all runs of a table on one card, one after the other."""
    found = list(runs)
    largest = [each.largest for each in found if each.largest is not None]
    refused = {each.what: each for run in found for each in run.refused}
    return CardHours(
        found[0].gib,
        sum(each.hours for each in found),
        max(largest, key=lambda each: each.bytes, default=None),
        tuple(refused.values()),
    )


def line(card: CardHours) -> str:
    """Write it in one line."""
    hours = f"{card.hours:.0f}" if card.hours >= 10 else f"{card.hours:.1f}"
    text = f"one GPU of {card.gib} GiB: about {hours} GPU-hours, to a factor of three"
    if card.largest is not None:
        text += f"; most memory {card.largest.bytes / GIB:.1f} GiB, {card.largest.what}"
    if card.refused:
        text += f"; does NOT FIT: {', '.join(each.what for each in card.refused)}"
    return text
