"""The training loop of the miniatures: Muon for the matrices inside, AdamW for all else.

Pretraining from scratch within minutes is unlike tuning an adapter, so this loop is apart from
``models.training``. Muon (orthogonalised momentum) needs about half as many steps as AdamW on these
networks; the measurements are in docs/LOG.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from models.miniature.muon import Muon

WARMUP = 0.05
CLIP = 1.0
# Muon's step has a fixed size whatever the gradient's: its rate is another quantity than AdamW's.
MUON_PER_ADAM = 3.0
BETAS = (0.9, 0.98)
OUTER = ("embed", "lm_head", "classifier")

StepDone = Callable[[int], None]


def fit(
    model: nn.Module,
    next_loss: Callable[[], Tensor],
    steps: int,
    learning_rate: float,
    on_step: StepDone,
    muon_per_adam: float = MUON_PER_ADAM,
) -> tuple[float, ...]:
    """Train ``model`` for ``steps`` steps: linear warm-up, then linear decay to 0.

    Args:
        model: Network in training mode, on the CPU.
        next_loss: Forward pass on the next batch; a scalar.
        steps: Optimizer steps.
        learning_rate: AdamW's peak.
        on_step: Called with the number of steps done.
        muon_per_adam: Muon's peak is so many times as large.

    Returns:
        One loss per step.
    """
    optimizers = _optimizers(model, learning_rate, muon_per_adam)
    peaks = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    losses = []
    for step in range(steps):
        for optimizer, peak in zip(optimizers, peaks, strict=True):
            optimizer.param_groups[0]["lr"] = peak * _factor(step, steps)
        loss = next_loss()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        losses.append(float(loss.detach()))
        on_step(step + 1)
    return tuple(losses)


def _optimizers(
    model: nn.Module, learning_rate: float, muon_per_adam: float
) -> list[torch.optim.Optimizer]:
    named = list(model.named_parameters())
    inner = [p for name, p in named if p.ndim == 2 and not any(part in name for part in OUTER)]
    inside = {id(parameter) for parameter in inner}
    outer = [parameter for _, parameter in named if id(parameter) not in inside]
    return [
        Muon(inner, lr=muon_per_adam * learning_rate),
        torch.optim.AdamW(outer, lr=learning_rate, betas=BETAS, weight_decay=0.01),
    ]


def _factor(step: int, steps: int) -> float:
    warm = (step + 1) / (WARMUP * steps + 1)
    return min(1.0, warm, 1 - step / steps)


@contextmanager
def one_thread() -> Iterator[None]:
    """Use one thread for the matrix products of the calling thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
