"""AdamW over the rows of a stack: each user's adapter by its own settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from models.multi_lora.stacked import Stack
from models.training import Schedule

BETAS = (0.9, 0.999)  # AdamW's, as torch has them
EPSILON = 1e-8


class AdamW:
    """AdamW and gradient clipping for the rows of a stack, each row by its own settings."""

    def __init__(self, stack: Stack, schedules: Sequence[Schedule]) -> None:
        self._first = torch.zeros_like(stack.weights)  # (U, P)
        self._second = torch.zeros_like(stack.weights)
        self._clip = _column(stack, [schedule.clip for schedule in schedules])
        self._decay = _column(stack, [schedule.weight_decay for schedule in schedules])
        self._steps = 0

    def step(self, stack: Stack, rates: Sequence[float]) -> None:
        """Clip the gradients and move the weights, as torch's own clipping and AdamW do."""
        self._steps += 1
        rate = _column(stack, rates)  # (U, 1)
        gradients = stack.gradients
        norms = torch.linalg.vector_norm(gradients, dim=1, keepdim=True)
        gradients *= (self._clip / (norms + 1e-6)).clamp_(max=1.0)
        stack.weights *= 1 - rate * self._decay
        self._first.lerp_(gradients, 1 - BETAS[0])
        self._second.mul_(BETAS[1]).addcmul_(gradients, gradients, value=1 - BETAS[1])
        spread = self._second.sqrt().div_((1 - BETAS[1] ** self._steps) ** 0.5).add_(EPSILON)
        stack.weights -= self._first.div(spread).mul_(rate / (1 - BETAS[0] ** self._steps))
        stack.refresh()

    def keep(self, indices: Sequence[int]) -> None:
        """Reduce the state to the rows ``indices``."""
        rows = list(indices)
        self._first, self._second = self._first[rows], self._second[rows]
        self._clip, self._decay = self._clip[rows], self._decay[rows]

    def state(self) -> dict[str, torch.Tensor]:
        """The moments, (U, P) each, and the steps taken."""
        return {
            "first": self._first,
            "second": self._second,
            "steps": torch.tensor(self._steps),
        }

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        """Go on from what :meth:`state` gave."""
        self._first.copy_(state["first"])
        self._second.copy_(state["second"])
        self._steps = int(state["steps"])


def _column(stack: Stack, values: Sequence[float]) -> torch.Tensor:
    return torch.tensor(values, device=stack.weights.device).unsqueeze(1)
