"""DP-SGD on an adapter: every record's gradient is clipped, and noise hides whether it was there.

The loop of Abadi et al., "Deep Learning with Differential Privacy" (CCS 2016), on the LoRA
weights: each step draws every record with probability q, clips the gradient of each drawn record to
norm C, adds normal noise of deviation sigma * C to their sum, and divides by the expected number of
records. A record's gradient is that of all examples made from it, so what the cloud wrote from
it is covered too: the adapter is (epsilon, delta)-private for adding or removing one record of D_u.
Opacus's RDP accountant finds sigma. The number of records counts as public. The report of a
training is exact: its losses and token counts are not covered and must not leave the device.

Draws and noise come from :class:`SystemDraws`, the operating system's generator: whoever could
find a seed could take the noise away, and PyTorch's own generator keeps only 32 bits of one. A
:class:`SeededDraws` repeats itself, for simulations; its epsilon is for study. Noise is of float32
weights; attacks on the last bits of floating-point noise (Mironov, CCS 2012) are not covered.
"""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from peft import PeftModel

from models.batch_gradient import BatchGradient
from models.chat import Encoded
from models.out_of_memory import no_other_lack
from models.training import (
    Schedule,
    TrainReport,
    learning_rates,
    peak_memory,
    require_finite,
    require_finite_weights,
    training_mode,
)


@dataclass(frozen=True, slots=True)
class Guarantee:
    """What one adapter's training is to guarantee.

    Attributes:
        epsilon: Largest privacy loss.
        delta: Probability that it is larger.
        clip: Largest gradient norm of one record.
    """

    epsilon: float
    delta: float
    clip: float


@dataclass(frozen=True, slots=True)
class AccountedTraining:
    """What an accountant counts of one training.

    Attributes:
        sigma: Deviation of the noise, in clips.
        rate: Probability with which a step draws a record.
        steps: Optimizer steps.
    """

    sigma: float
    rate: float
    steps: int


class Draws(Protocol):
    """Where draws and noise come from."""

    def uniform(self, count: int) -> torch.Tensor:
        """(count,) float64 numbers in [0, 1)."""

    def normal(self, shape: torch.Size) -> torch.Tensor:
        """Standard normal float32 numbers of this shape."""


class SystemDraws:
    """Draws from the operating system's generator; no two are alike and no seed exists."""

    def uniform(self, count: int) -> torch.Tensor:
        """(count,) float64 numbers in [0, 1): the upper 53 bits of 64 random ones."""
        bits = np.frombuffer(os.urandom(8 * count), dtype=np.uint64)
        return torch.from_numpy((bits >> np.uint64(11)).astype(np.float64) * 2.0**-53)

    def normal(self, shape: torch.Size) -> torch.Tensor:
        """Standard normal numbers (Box and Muller, 1958)."""
        half = (shape.numel() + 1) // 2
        radius = torch.sqrt(-2.0 * torch.log1p(-self.uniform(half)))  # of 1 - u, never 0
        angle = 2.0 * math.pi * self.uniform(half)
        both = torch.cat((radius * torch.cos(angle), radius * torch.sin(angle)))
        return both[: shape.numel()].reshape(shape).to(torch.float32)


class SeededDraws:
    """Draws that a seed repeats; all of the seed's bits count."""

    def __init__(self, seed: int) -> None:
        """Start at ``seed``."""
        self._generator = np.random.default_rng(seed)

    def uniform(self, count: int) -> torch.Tensor:
        """(count,) float64 numbers in [0, 1)."""
        return torch.from_numpy(self._generator.random(count))

    def normal(self, shape: torch.Size) -> torch.Tensor:
        """Standard normal float32 numbers of this shape."""
        return torch.from_numpy(self._generator.standard_normal(tuple(shape), dtype=np.float32))


@lru_cache(maxsize=256)
def noise_multiplier(guarantee: Guarantee, sample_rate: float, steps: int) -> float:
    """The sigma with which ``steps`` steps at this rate keep the guarantee."""
    from opacus.accountants.utils import get_noise_multiplier

    with warnings.catch_warnings():
        # its search tries sigmas far off, where the bound holds but is loose
        warnings.filterwarnings("ignore", message="Optimal order is the")
        sigma = get_noise_multiplier(
            target_epsilon=guarantee.epsilon,
            target_delta=guarantee.delta,
            sample_rate=sample_rate,
            steps=steps,
            accountant="rdp",
        )
    return float(sigma)


def epsilon_of(sigma: float, delta: float, sample_rate: float, steps: int) -> float:
    """The epsilon that was spent, by the same accountant."""
    return composed_epsilon([AccountedTraining(sigma, sample_rate, steps)], delta)


def composed_epsilon(trainings: Sequence[AccountedTraining], delta: float) -> float:
    """The epsilon that all ``trainings`` on the same records spent together."""
    from opacus.accountants import RDPAccountant

    accountant = RDPAccountant()
    accountant.history = [(each.sigma, each.rate, each.steps) for each in trainings]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Optimal order is the")
        return float(accountant.get_epsilon(delta))


def plan(guarantee: Guarantee, records: int, batch_size: int, steps: int) -> AccountedTraining:
    """The noise and the sampling rate with which a training keeps ``guarantee``."""
    rate = min(1.0, batch_size / records)
    return AccountedTraining(noise_multiplier(guarantee, rate, steps), rate, steps)


def train_privately(
    model: PeftModel,
    pad_id: int,
    records: Sequence[Sequence[Encoded]],
    schedule: Schedule,
    guarantee: Guarantee,
    draws: Draws,
    dropout_seed: int = 0,
) -> TrainReport:
    """Train the parameters of ``model`` that require gradients; the model is left in eval mode.

    Args:
        model: Frozen base with an adapter slot.
        pad_id: Id that fills short rows.
        records: Per record of D_u all examples that were made from it, its own first.
        schedule: Steps, expected records per step and rates; its own clipping is not used.
        guarantee: What to keep.
        draws: Where the drawn records and the noise come from.
        dropout_seed: Seed of dropout, which hides nothing.

    Returns:
        As of :func:`models.training.train`; a step that drew no record has loss 0.

    Raises:
        ModelError: If a loss is not finite, or memory runs out with a single example.
    """
    if not schedule.steps or not records:
        return TrainReport((), 0, 0, 0.0, peak_memory(model.device))
    started = time.perf_counter()
    planned = plan(guarantee, len(records), schedule.batch_size, schedule.steps)
    sigma, rate = planned.sigma, planned.rate
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(
        trained, lr=schedule.learning_rate, weight_decay=schedule.weight_decay
    )
    gradient = BatchGradient(model, trained, pad_id)
    losses, tokens = [], 0
    with no_other_lack(1), training_mode(model, dropout_seed):
        for learning_rate in learning_rates(schedule):
            chosen = (draws.uniform(len(records)) < rate).nonzero().flatten().tolist()
            drawn = [records[index] for index in chosen]
            total, loss = _clipped_sum(gradient, trained, drawn, guarantee.clip)
            for weight, own in zip(trained, total, strict=True):
                noise = draws.normal(own.shape).to(own.device)
                weight.grad = (own + sigma * guarantee.clip * noise) / (rate * len(records))
            optimizer.param_groups[0]["lr"] = learning_rate
            optimizer.step()
            losses.append(loss)
            tokens += sum(len(example.input_ids) for record in drawn for example in record)
    optimizer.zero_grad(set_to_none=True)
    require_finite(losses, schedule)
    require_finite_weights(trained, schedule)
    seconds, peak = time.perf_counter() - started, peak_memory(model.device)
    return TrainReport(tuple(losses), len(losses), tokens, seconds, peak, gradient.reductions)


def _clipped_sum(
    gradient: BatchGradient,
    trained: Sequence[torch.nn.Parameter],
    drawn: Sequence[Sequence[Encoded]],
    clip: float,
) -> tuple[list[torch.Tensor], float]:
    """Sum of the records' clipped gradients, and their mean loss.

    A record's gradient is clipped when it is whole, also where memory parts its examples.
    """
    total = [torch.zeros_like(weight) for weight in trained]
    losses = []
    for record in drawn:
        own, found = gradient.of(record)
        scale = clipping_factor(own, clip)
        for place, each in enumerate(own):
            total[place] += scale * each
        losses.append(float(found.loss(0.0)))
    return total, sum(losses) / max(1, len(losses))


def clipping_factor(gradient: Sequence[torch.Tensor], clip: float) -> float:
    """What brings a record's whole gradient to at most norm ``clip``."""
    norm = float(torch.stack([part.norm() for part in gradient]).norm())
    return min(1.0, clip / norm) if norm > 0 else 1.0
