"""LoRA dropout as places: which inputs of a layer are left out, drawn by the gaps between them.

Every input is left out with the same probability and independently of the others, as a mask would
have it. At the usual rates few are, so places cost a fraction of a mask, in time and memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

_MARGIN = 8  # deviations by which more gaps are drawn than are needed in the mean


def draw_places(
    sizes: Sequence[int], width: int, rate: float, generators: Sequence[torch.Generator]
) -> torch.Tensor:
    """Return the places of the inputs that are left out of one use of a layer.

    Args:
        sizes: Tokens of each user; a user's places come from that user's generator alone.
        width: Inputs of each token.
        rate: Probability that an input is left out, above 0.
        generators: One per user.

    Returns:
        (M,) int64 places in the (N, width) inputs, row by row; N * width stands for no place.
    """
    nowhere, start, found = sum(sizes) * width, 0, []
    for size, generator in zip(sizes, generators, strict=True):
        places = _drawn(size * width, rate, generator)
        if len(sizes) > 1:
            places = torch.where(places < size * width, places + start, nowhere)
        found.append(places.clamp_(max=nowhere))
        start += size * width
    return torch.cat(found)


def without(inputs: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Return a copy of the (N, width) ``inputs`` with zeros at ``places``."""
    flat = inputs.new_empty(inputs.numel() + 1)  # the last cell takes what stands for no place
    flat[:-1].copy_(inputs.reshape(-1))
    return flat.index_fill_(0, places, 0)[:-1].view(inputs.shape)


def _drawn(cells: int, rate: float, generator: torch.Generator) -> torch.Tensor:
    """Return ascending places, most likely beyond the last of ``cells``; gaps are geometric."""
    mean = cells * rate
    number = int(mean + _MARGIN * math.sqrt(mean)) + 2 * _MARGIN
    uniform = torch.rand(number, generator=generator, device=generator.device)
    if rate >= 1:
        return torch.arange(cells, device=generator.device)
    skipped = uniform.neg_().log1p_().div_(math.log1p(-rate)).long()  # cut off, not rounded
    return skipped.add_(1).cumsum(0).sub_(1)
