"""Muon in float32, matrices of one shape at a time.

``torch.optim.Muon`` orthogonalises one matrix after the other in bfloat16. A processor without
bfloat16 instructions, as most laptops have, takes two thirds of a miniature's training for that
alone (docs/LOG.md). In float32 and in batches it is a tenth, and the same on every processor.

Reference: K. Jordan, Muon (2024), whose coefficients and Nesterov momentum these are, as in torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
# Of the quintic that drives all singular values towards 1 in five steps.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
STEPS = 5
SMALLEST_NORM = 1e-7


class Muon(torch.optim.Optimizer):
    """Momentum whose every step is a nearly orthogonal matrix; no weight decay."""

    def __init__(self, matrices: Iterable[nn.Parameter], lr: float) -> None:
        """Prepare the optimizer.

        Args:
            matrices: Parameters of shape (height, width), float32.
            lr: Step size: the largest singular value of a step of a wide or square matrix.
        """
        super().__init__(matrices, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step; a matrix without gradient stays as it is."""
        result = closure() if closure is not None else None
        for group in self.param_groups:
            moved = [matrix for matrix in group["params"] if matrix.grad is not None]
            for shape, same in groupby(sorted(moved, key=_shape), key=_shape):
                matrices = list(same)
                height, width = shape
                rate = group["lr"] * max(1.0, height / width) ** 0.5
                directions = orthogonalised(torch.stack([self._ahead(each) for each in matrices]))
                for matrix, direction in zip(matrices, directions, strict=True):
                    matrix.sub_(direction, alpha=rate)
        return result

    def _ahead(self, matrix: nn.Parameter) -> Tensor:
        """Nesterov's momentum: the gradient and the running mean of the earlier ones."""
        state, gradient = self.state[matrix], matrix.grad
        if gradient is None:
            raise RuntimeError("a matrix without gradient does not move")
        if not state:
            state["momentum"] = torch.zeros_like(matrix)
        mean: Tensor = state["momentum"].lerp_(gradient, 1 - MOMENTUM)
        return gradient.lerp(mean, MOMENTUM)


def orthogonalised(matrices: Tensor) -> Tensor:
    """Return (n, h, w) matrices of the same singular vectors, singular values near 1.

    Args:
        matrices: (n, h, w) float32.
    """
    a, b, c = COEFFICIENTS
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if is_tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=SMALLEST_NORM)  # spectral norm at most 1
    for _ in range(STEPS):
        gram = torch.bmm(x, x.mT)
        update = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, update, x, beta=a)
    return x.mT if is_tall else x


def _shape(matrix: Tensor) -> tuple[int, ...]:
    return tuple(matrix.shape)
