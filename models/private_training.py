"""DP-SGD on an adapter: every record's gradient is clipped, and noise hides whether it was there.

The loop of Abadi et al., "Deep Learning with Differential Privacy" (CCS 2016), on the LoRA
weights: each step draws every record with probability q, clips the gradient of each drawn record to
norm C, adds normal noise of deviation sigma * C to their sum, and divides by the expected number of
records. A record's gradient is that of all examples made from it, so what the cloud wrote from
it is covered too: the adapter is (epsilon, delta)-private for adding or removing one record of D_u.
Opacus's RDP accountant finds sigma. The number of records counts as public. The report of a
training is exact: its losses and token counts are not covered.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from peft import PeftModel

from models.chat import Encoded
from models.training import (
    Schedule,
    TrainReport,
    batch_loss,
    collate,
    learning_rates,
    peak_memory,
    require_finite,
    require_finite_weights,
    training_mode,
)

Gradients = list[torch.Tensor]


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
    from opacus.accountants import RDPAccountant

    accountant = RDPAccountant()
    accountant.history = [(sigma, sample_rate, steps)]
    return float(accountant.get_epsilon(delta))


def train_privately(
    model: PeftModel,
    pad_id: int,
    records: Sequence[Sequence[Encoded]],
    schedule: Schedule,
    guarantee: Guarantee,
    seed: int,
) -> TrainReport:
    """Train the parameters of ``model`` that require gradients; the model is left in eval mode.

    Args:
        model: Frozen base with an adapter slot.
        pad_id: Id that fills short rows.
        records: Per record of D_u all examples that were made from it, its own first.
        schedule: Steps, expected records per step and rates; its own clipping is not used.
        guarantee: What to keep.
        seed: Seed of draws, noise and dropout; whoever knows it can take the noise away.

    Returns:
        As of :func:`models.training.train`; a step that drew no record has loss 0.

    Raises:
        ModelError: If a loss is not finite.
    """
    if not schedule.steps or not records:
        return TrainReport((), 0, 0, 0.0, peak_memory(model.device))
    started = time.perf_counter()
    rate = min(1.0, schedule.batch_size / len(records))
    sigma = noise_multiplier(guarantee, rate, schedule.steps)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(
        trained, lr=schedule.learning_rate, weight_decay=schedule.weight_decay
    )
    draw = torch.Generator().manual_seed(seed)
    losses, tokens = [], 0
    with training_mode(model, seed):
        for learning_rate in learning_rates(schedule):
            chosen = (torch.rand(len(records), generator=draw) < rate).nonzero().flatten().tolist()
            drawn = [records[index] for index in chosen]
            total, loss = _clipped_sum(model, trained, pad_id, drawn, guarantee.clip)
            for weight, gradient in zip(trained, total, strict=True):
                noise = torch.randn(gradient.shape, generator=draw).to(gradient.device)
                weight.grad = (gradient + sigma * guarantee.clip * noise) / (rate * len(records))
            optimizer.param_groups[0]["lr"] = learning_rate
            optimizer.step()
            losses.append(loss)
            tokens += sum(len(example.input_ids) for record in drawn for example in record)
    optimizer.zero_grad(set_to_none=True)
    require_finite(losses, schedule)
    require_finite_weights(trained, schedule)
    seconds = time.perf_counter() - started
    return TrainReport(tuple(losses), len(losses), tokens, seconds, peak_memory(model.device))


def _clipped_sum(
    model: PeftModel,
    trained: Sequence[torch.nn.Parameter],
    pad_id: int,
    drawn: Sequence[Sequence[Encoded]],
    clip: float,
) -> tuple[Gradients, float]:
    """Sum of the records' clipped gradients, and their mean loss."""
    total = [torch.zeros_like(weight) for weight in trained]
    losses = []
    mixed = model.dtype == torch.bfloat16
    for record in drawn:
        with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=mixed):
            loss = batch_loss(model, collate(record, pad_id, model.device))
        own = torch.autograd.grad(loss, list(trained))
        scale = clipping_factor(own, clip)
        for place, gradient in enumerate(own):
            total[place] += scale * gradient
        losses.append(float(loss.detach()))
    return total, sum(losses) / max(1, len(losses))


def clipping_factor(gradient: Sequence[torch.Tensor], clip: float) -> float:
    """What brings a record's whole gradient to at most norm ``clip``."""
    norm = float(torch.stack([part.norm() for part in gradient]).norm())
    return min(1.0, clip / norm) if norm > 0 else 1.0
