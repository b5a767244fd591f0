"""Batches of equal cost: examples of similar length, as many as fit into a number of tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


def by_length(items: Iterable[T], length: Callable[[T], int], tokens: int) -> list[list[T]]:
    """Cut ``items``, shortest first, into batches of at most ``tokens`` padded tokens.

    An item that is longer than ``tokens`` makes a batch of its own.
    """
    batches: list[list[T]] = []
    for item in sorted(items, key=length):
        # items come in order of length, so this one is the longest of its batch
        if not batches or (len(batches[-1]) + 1) * length(item) > tokens:
            batches.append([])
        batches[-1].append(item)
    return batches
