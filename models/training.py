"""The training loop: a frozen base, the parameters that require gradients, a linear schedule.

Only scored positions reach the output layer, and no loss is read before the last step is on its
way. All randomness, batches and dropout, comes from one seed; no global generator is moved.
"""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from conf.errors import ModelError
from conf.schema import QLoraConfig
from conf.seeds import derive_seed
from models.batch_gradient import BatchGradient
from models.chat import Encoded

OnStep = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How long and how fast to train.

    Attributes:
        steps: Optimizer steps; any number, not only whole epochs.
        batch_size: Examples per step; the last batch of an epoch may be shorter.
        learning_rate: AdamW peak learning rate.
        warmup: Share of the steps with rising learning rate; then linear decay.
        clip: Largest gradient norm over all trained parameters.
        weight_decay: AdamW weight decay.
    """

    steps: int
    batch_size: int
    learning_rate: float
    warmup: float
    clip: float
    weight_decay: float


@dataclass(frozen=True, slots=True)
class TrainReport:
    """What one training did.

    Attributes:
        losses: Mean loss per scored token, of each step before its update.
        steps: Optimizer steps taken.
        tokens: Tokens seen, without padding.
        seconds: Wall time.
        peak_memory_bytes: Most memory on the GPU during training; on a CPU the process's peak so
            far, which other work may have set.
        reductions: How often memory ran out, of all who trained together, and the training went on
            in smaller micro-batches, with checkpoints or in a smaller cohort.
    """

    losses: tuple[float, ...]
    steps: int
    tokens: int
    seconds: float
    peak_memory_bytes: int
    reductions: int = 0


def steps_for(n_records: int, batch_size: int, epochs: int) -> int:
    """Return the optimizer steps of ``epochs`` passes; a short batch counts, no records give 0."""
    return math.ceil(n_records / batch_size) * epochs


def user_schedule(qlora: QLoraConfig, n_records: int) -> Schedule:
    """Return the schedule of an adapter on ``n_records`` records."""
    return Schedule(
        steps=steps_for(n_records, qlora.batch_size, qlora.epochs),
        batch_size=qlora.batch_size,
        learning_rate=qlora.learning_rate,
        warmup=qlora.warmup,
        clip=qlora.clip,
        weight_decay=qlora.weight_decay,
    )


def train(
    model: PreTrainedModel | PeftModel,
    tokenizer_pad_id: int,
    examples: Sequence[Encoded],
    schedule: Schedule,
    seed: int,
    on_step: OnStep | None = None,
    distillation: float = 0.0,
) -> TrainReport:
    """Train the parameters of ``model`` that require gradients; the model is left in eval mode.

    The loss of a step is the mean over the scored tokens of its batch, in micro-batches where
    memory runs out (:mod:`models.batch_gradient`).

    Args:
        model: Causal model, typically a frozen base with an adapter slot.
        tokenizer_pad_id: Id that fills short rows; never attended, never scored.
        examples: Training examples.
        schedule: Steps, batches and rates. With more steps than an epoch has batches, epochs
            follow each other, each in its own order.
        seed: Seed of batches and dropout.
        on_step: Called after each step with the steps done and their total.
        distillation: Weight of the reverse KL of examples that have a teacher.

    Raises:
        ModelError: If there are steps to take but no examples, a loss is not finite, or memory runs
            out with single rows.
    """
    if not schedule.steps:
        return TrainReport((), 0, 0, 0.0, peak_memory(model.device))
    if not examples:
        raise ModelError(f"training: expected examples for {schedule.steps} steps, got none")
    started = time.perf_counter()
    with training_mode(model, seed):
        losses, tokens, reductions = _run(
            model, tokenizer_pad_id, examples, schedule, seed, on_step, distillation
        )
    require_finite(losses, schedule)
    require_finite_weights((w for w in model.parameters() if w.requires_grad), schedule)
    seconds = time.perf_counter() - started
    peak = peak_memory(model.device)
    return TrainReport(losses, len(losses), tokens, seconds, peak, reductions)


def learning_rates(schedule: Schedule) -> list[float]:
    """Return the learning rate of every step.

    Linear up over the first ``ceil(warmup * steps)`` steps, then linear down, as transformers'
    ``get_linear_schedule_with_warmup``, with one deviation: there the first step has rate 0 and
    moves nothing, an eighth of a user's eight steps; here it has its share of the rise.
    """
    rising = math.ceil(schedule.warmup * schedule.steps)
    falling = max(1, schedule.steps - rising)
    return [
        schedule.learning_rate * min((step + 1) / (rising + 1), (schedule.steps - step) / falling)
        for step in range(schedule.steps)
    ]


def batches(n_examples: int, batch_size: int, steps: int, seed: int) -> Iterator[list[int]]:
    """Yield ``steps`` batches of indices: epoch after epoch, each a fresh seeded permutation."""
    rng = np.random.default_rng(derive_seed(seed, "order"))
    left = steps
    while left > 0:
        order = rng.permutation(n_examples).tolist()
        for start in range(0, n_examples, batch_size)[:left]:
            yield order[start : start + batch_size]
            left -= 1


def _run(
    model: PreTrainedModel | PeftModel,
    pad_id: int,
    examples: Sequence[Encoded],
    schedule: Schedule,
    seed: int,
    on_step: OnStep | None,
    distillation: float,
) -> tuple[tuple[float, ...], int, int]:
    """Losses of all steps, tokens seen, and how often memory ran out."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(
        trained, lr=schedule.learning_rate, weight_decay=schedule.weight_decay, fused=True
    )
    (group,) = optimizer.param_groups
    gradient = BatchGradient(model, trained, pad_id, distillation)
    order = batches(len(examples), schedule.batch_size, schedule.steps, seed)
    losses, tokens = [], 0  # on the device: reading one here would wait for the step
    for done, (rate, chosen) in enumerate(zip(learning_rates(schedule), order, strict=True), 1):
        rows = [examples[index] for index in chosen]
        gradients, found = gradient.of(rows)
        for weight, own in zip(trained, gradients, strict=True):
            weight.grad = own
        nn.utils.clip_grad_norm_(trained, schedule.clip)
        group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(found.loss(distillation))
        tokens += sum(len(row.input_ids) for row in rows)
        if on_step is not None:
            on_step(done, schedule.steps)
    return tuple(torch.stack(losses).tolist()), tokens, gradient.reductions


@contextmanager
def training_mode(model: PreTrainedModel | PeftModel, seed: int) -> Iterator[None]:
    """Switch dropout on, drawing from ``seed``; the process's generators stay where they are."""
    on_gpu = model.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(model.device)
    with torch.random.fork_rng(devices=[model.device] if on_gpu else []):
        torch.manual_seed(derive_seed(seed, "dropout"))
        model.train()
        try:
            yield
        finally:
            model.eval()


def require_finite(losses: Sequence[float], schedule: Schedule) -> None:
    """Check the losses of a training.

    Raises:
        ModelError: If one is not finite.
    """
    for step, loss in enumerate(losses, 1):
        if not math.isfinite(loss):
            raise ModelError(
                f"training: expected a finite loss, got {loss} at step {step} of {schedule.steps}; "
                f"lower the learning rate ({schedule.learning_rate:g})"
            )


def require_finite_weights(weights: Iterable[torch.Tensor], schedule: Schedule) -> None:
    """Check what a training leaves: the last step's update comes after the last loss.

    Raises:
        ModelError: If a weight is not finite.
    """
    if not all(bool(torch.isfinite(weight).all()) for weight in weights):
        raise ModelError(
            f"training: expected finite weights after {schedule.steps} steps, got others; "
            f"lower the learning rate ({schedule.learning_rate:g})"
        )


def peak_memory(device: torch.device) -> int:
    """Return the most bytes so far: on a GPU since the last reset, on a CPU of the process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB
