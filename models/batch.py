"""Examples as tensors, and in parts: padded on the right, the next tokens at scored positions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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


def micro_batches(
    users: Sequence[Sequence[Encoded]], most_tokens: int
) -> list[list[list[Encoded]]]:
    """Part the rows of a step into micro-batches of about ``most_tokens`` tokens.

    How a user's rows are parted, and in which order they come, does not depend on who else is
    there. Where all of them fit they stay in their order; else each part has rows of like length.

    Args:
        users: Rows of each user, at least one.
        most_tokens: A micro-batch has more only where a single row does, or parts are uneven.

    Returns:
        Micro-batches of the rows of each user; a user may have none in some of them.
    """
    waiting = [_even_parts(rows, most_tokens) for rows in users]
    made = []
    while any(waiting):
        taken, room = list[list[Encoded]](), most_tokens
        for parts in waiting:
            fits = parts and (room == most_tokens or _tokens(parts[0]) <= room)
            taken.append(parts.pop(0) if fits else [])
            room -= _tokens(taken[-1])
        made.append(taken)
    return made


def largest_part(users: Sequence[Sequence[Encoded]], most_tokens: int) -> int:
    """Return the tokens of the largest micro-batch."""
    return max(sum(map(_tokens, part)) for part in micro_batches(users, most_tokens))


def _even_parts(rows: Sequence[Encoded], most_tokens: int) -> list[list[Encoded]]:
    """Part one user's rows into as few parts as fit, of about as many tokens each."""
    number = min(-(-_tokens(rows) // max(1, most_tokens)), len(rows))
    if number <= 1:
        return [list(rows)]
    parts: list[list[Encoded]] = [[] for _ in range(number)]
    before, tokens = 0, _tokens(rows)
    for row in sorted(rows, key=lambda row: -len(row.input_ids)):
        middle = before + len(row.input_ids) / 2
        parts[min(number - 1, int(middle * number / tokens))].append(row)
        before += len(row.input_ids)
    return [part for part in parts if part]


def _tokens(rows: Iterable[Encoded]) -> int:
    return sum(len(row.input_ids) for row in rows)


def _padded(rows: Sequence[Sequence[int]], width: int, fill: int) -> torch.Tensor:
    return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows])
