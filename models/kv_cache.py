"""A key-value cache that grows in place.

transformers' own concatenates at every token, so it copies the whole cache each time: more than
half of the time of batched generation on a CPU.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache, PretrainedConfig
from transformers.cache_utils import DynamicLayer

ROOM = 32  # tokens kept free behind the cached ones


class RoomyLayer(DynamicLayer):  # type: ignore[misc]  # transformers has no types
    """Keys and values of one layer, (B, H, T, D), as views into larger tensors."""

    def __init__(self) -> None:
        super().__init__()
        self._buffers: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append the states of new tokens and return those of all tokens."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if self._buffers is None or self._buffers[0].shape[-2] < end:
            self._buffers = (
                self._moved(self.keys, key_states),
                self._moved(self.values, value_states),
            )
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:end] = states
        self.keys, self.values = (buffer[:, :, :end] for buffer in self._buffers)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Reduce the batch to ``indices``."""
        super().batch_select_indices(indices)
        self._buffers = None  # the next update makes room again

    def _moved(self, cached: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        """Return a tensor with ``cached`` in front, room for ``states`` and some more."""
        start = self.get_seq_length()
        batch, heads, new, depth = states.shape
        buffer = states.new_empty(batch, heads, start + new + ROOM, depth)
        if start:
            buffer[:, :, :start] = cached
        return buffer


def roomy_cache(config: PretrainedConfig) -> DynamicCache:
    """Return an empty cache; layers of other kinds (sliding windows) are transformers' own."""
    cache = DynamicCache(config=config)
    cache.layers = [
        RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers
    ]
    return cache
