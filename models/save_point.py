"""Where a training stands, on disk: phones end background work without asking.

Every few steps the adapter, AdamW's moments, the losses and the dropout generator go to one file,
which replaces the last one at once. A training that finds the file of its own key goes on there and
ends with the bytes of one that nobody interrupted; any other file is passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from storage import atomic


@dataclass(frozen=True, slots=True)
class SavePoint:
    """Where and how often one training is saved.

    Attributes:
        path: The file; it stays until whoever trains has stored the adapter.
        key: Hash of what the training is made from.
        every: Steps between two saves.
    """

    path: Path
    key: str
    every: int

    def is_due(self, step: int) -> bool:
        """Whether the state after ``step`` steps is to be saved."""
        return step % self.every == 0

    def write(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Replace what was saved.

        Raises:
            RunError: If the disk is full or read-only.
        """
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        atomic.write_bytes(self.path, save(plain, metadata={"key": self.key}))

    def read(self) -> dict[str, torch.Tensor] | None:
        """What was saved under this key; None where there is nothing, or nothing whole."""
        try:
            with safe_open(self.path, framework="pt") as file:
                if (file.metadata() or {}).get("key") != self.key:
                    return None
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError):
            return None
