"""A key-value cache of a decoder whose room is taken once: a step writes its tokens in place.

transformers' ``DynamicLayer`` joins the new keys to all earlier ones at each step, a copy of the
whole cache. Here a layer has room for all the tokens that will come, and hands out views of what is
filled, of the same shape and the same numbers.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


class RoomyLayer(DynamicLayer):
    """A layer of a decoder's cache with room for ``capacity`` tokens.

    ``keys`` and ``values`` are views, (B, H, T, D), of the T tokens that are filled.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._capacity = capacity
        self._rooms: tuple[torch.Tensor, ...] = ()  # (B, H, capacity, D) of keys and of values

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the (B, H, n, D) states of n new tokens behind the others; returns all."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._rooms = tuple(
                each.new_empty(*each.shape[:2], self._capacity, each.shape[-1])
                for each in (key_states, value_states)
            )
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        for room, states in zip(self._rooms, (key_states, value_states), strict=True):
            room[:, :, start:end].copy_(states)
        return self._show(end)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep the rows ``indices``; an index may come several times."""
        if end := self.get_seq_length():
            self._rooms = tuple(room.index_select(0, indices) for room in self._rooms)
            self._show(end)

    def _show(self, end: int) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = (room[:, :, :end] for room in self._rooms)
        self.keys, self.values = keys, values
        return keys, values


def roomy_cache(config: Any, capacity: int) -> DynamicCache:
    """Return a cache for ``capacity`` tokens a row; sliding layers are left to transformers.

    Args:
        config: The model's configuration.
        capacity: Tokens of the longest prompt and what is written behind it.
    """
    cache = DynamicCache(config=config)
    cache.layers = [
        RoomyLayer(capacity) if type(layer) is DynamicLayer else layer for layer in cache.layers
    ]
    return cache
