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
from functools import partial

import numpy as np
import torch
from peft import PeftModel
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from conf.errors import ModelError
from conf.schema import QLoraConfig
from conf.seeds import derive_seed
from models.chat import IGNORED, Encoded

OnStep = Callable[[int, int], None]
Objective = Callable[[PreTrainedModel | PeftModel, "Batch", Sequence[int]], torch.Tensor]


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
    """

    losses: tuple[float, ...]
    steps: int
    tokens: int
    seconds: float
    peak_memory_bytes: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Examples padded on the right.

    Attributes:
        input_ids: (B, T) int64.
        attention_mask: (B, T) int64, 0 on padding.
        scored: (B, T) bool, True where the next token counts.
        targets: (S,) int64, the next tokens at the scored positions, row by row.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    scored: torch.Tensor
    targets: torch.Tensor


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
    objective: Objective | None = None,
) -> TrainReport:
    """Train the parameters of ``model`` that require gradients; the model is left in eval mode.

    The loss of a step is the mean over the scored tokens of its batch. A bfloat16 base computes
    under autocast, so float32 adapter weights keep their precision while their products run in the
    compute type; a float32 base computes in float32 throughout.

    Args:
        model: Causal model, typically a frozen base with an adapter slot.
        tokenizer_pad_id: Id that fills short rows; never attended, never scored.
        examples: Training examples.
        schedule: Steps, batches and rates. With more steps than an epoch has batches, epochs
            follow each other, each in its own order.
        seed: Seed of batches and dropout.
        on_step: Called after each step with the steps done and their total.
        objective: Loss of a batch, given the indices of its examples; None is :func:`batch_loss`.

    Raises:
        ModelError: If there are steps to take but no examples, or a loss is not finite.
    """
    if not schedule.steps:
        return TrainReport((), 0, 0, 0.0, peak_memory(model.device))
    if not examples:
        raise ModelError(f"training: expected examples for {schedule.steps} steps, got none")
    started = time.perf_counter()
    with training_mode(model, seed):
        losses, tokens = _run(
            model, tokenizer_pad_id, examples, schedule, seed, on_step, objective or _plain
        )
    require_finite(losses, schedule)
    require_finite_weights((w for w in model.parameters() if w.requires_grad), schedule)
    seconds = time.perf_counter() - started
    return TrainReport(losses, len(losses), tokens, seconds, peak_memory(model.device))


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


def collate(examples: Sequence[Encoded], pad_id: int, device: torch.device | str = "cpu") -> Batch:
    """Pad ``examples`` on the right to the longest of them."""
    width = max(len(example.input_ids) for example in examples)
    ids = _padded([example.input_ids for example in examples], width, pad_id)
    lengths = torch.tensor([len(example.input_ids) for example in examples])
    following = _padded([example.labels[1:] for example in examples], width, IGNORED)
    scored = following != IGNORED
    attention_mask = (torch.arange(width) < lengths.unsqueeze(1)).long()
    tensors = (ids, attention_mask, scored, following[scored])
    return Batch(*(tensor.to(device, non_blocking=True) for tensor in tensors))


def batch_loss(model: PreTrainedModel | PeftModel, batch: Batch) -> torch.Tensor:
    """Return the mean cross-entropy over the scored tokens of ``batch``, a float32 scalar."""
    return cross_entropy(scored_logits(model, batch), batch.targets)


def scored_logits(model: PreTrainedModel | PeftModel, batch: Batch) -> torch.Tensor:
    """Return the (S, V) float32 logits at the scored positions of ``batch``.

    The output layer sees the scored positions only: at a vocabulary of 151,936 that is most of the
    memory of a step.
    """
    logits: torch.Tensor = model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        logits_to_keep=batch.scored,
        use_cache=False,
    ).logits
    return logits.float()


def _plain(
    model: PreTrainedModel | PeftModel, batch: Batch, _chosen: Sequence[int]
) -> torch.Tensor:
    return batch_loss(model, batch)


def _run(
    model: PreTrainedModel | PeftModel,
    pad_id: int,
    examples: Sequence[Encoded],
    schedule: Schedule,
    seed: int,
    on_step: OnStep | None,
    objective: Objective,
) -> tuple[tuple[float, ...], int]:
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(
        trained, lr=schedule.learning_rate, weight_decay=schedule.weight_decay, fused=True
    )
    order = batches(len(examples), schedule.batch_size, schedule.steps, seed)
    losses, tokens = [], 0
    for done, (rate, chosen) in enumerate(zip(learning_rates(schedule), order, strict=True), 1):
        rows = [examples[index] for index in chosen]
        batch = collate(rows, pad_id, model.device)
        loss = _step(
            model, optimizer, trained, partial(objective, model, batch, chosen), rate, schedule
        )
        losses.append(loss)  # stays on the device: reading it here would wait for the step
        tokens += sum(len(row.input_ids) for row in rows)
        if on_step is not None:
            on_step(done, schedule.steps)
    return tuple(torch.stack(losses).tolist()), tokens


def _step(
    model: PreTrainedModel | PeftModel,
    optimizer: torch.optim.Optimizer,
    trained: list[nn.Parameter],
    objective: Callable[[], torch.Tensor],
    rate: float,
    schedule: Schedule,
) -> torch.Tensor:
    for group in optimizer.param_groups:
        group["lr"] = rate
    mixed = model.dtype == torch.bfloat16
    with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=mixed):
        loss = objective()
    loss.backward()
    nn.utils.clip_grad_norm_(trained, schedule.clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.detach()


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


def _padded(rows: Sequence[Sequence[int]], width: int, fill: int) -> torch.Tensor:
    return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows])


def peak_memory(device: torch.device) -> int:
    """Return the most bytes so far: on a GPU since the last reset, on a CPU of the process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB
