"""Examples as tensors: padded on the right, with the next tokens at the scored positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from models.chat import IGNORED, Encoded


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


def _padded(rows: Sequence[Sequence[int]], width: int, fill: int) -> torch.Tensor:
    return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows])
