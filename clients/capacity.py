"""Whether a device has room for the base model and for training an adapter.

Training needs the weights as the NF4 device holds them, for each number of the adapter its float32
gradient and AdamW's two moments, and the activations and logits of at least one row, checkpointed
where it would not fit otherwise: a step's batch goes in micro-batches that fit what is left
(:mod:`models.memory` has the planner).
"""

from __future__ import annotations

from clients.base import Base
from clients.folder import Device
from conf.errors import ModelError
from models import memory
from models.lora import lora_parameters
from models.multi_lora.cohort import ACTIVATION_BYTES, Checkpointing
from models.quantisation import device_memory_bytes

_PER_NUMBER = 3 * 4  # gradient and two moments in float32
MIB = 1 << 20


def checkpointing_of(
    device: Device, base: Base, longest: int, wanted: Checkpointing
) -> Checkpointing:
    """Whether the device checkpoints its gradients: "auto" where it holds no row without."""
    limit = device.limits.memory_bytes
    if wanted == "auto" and limit is not None and training_memory_bytes(base, longest) > limit:
        return True
    return wanted


def require_capacity(
    device: Device, base: Base, longest: int = 0, *, checkpointed: bool = False
) -> None:
    """Refuse what the device cannot hold.

    Args:
        device: Whose limits count.
        base: Base model with its adapter slot.
        longest: Tokens of the longest row to train on; 0 where the device only answers.
        checkpointed: Whether it trains with checkpointed gradients.

    Raises:
        ModelError: If memory or storage is too small.
    """
    held = device_memory_bytes(base.model)
    needed = training_memory_bytes(base, longest, checkpointed=checkpointed) if longest else held
    _require(device, "memory", device.limits.memory_bytes, needed)
    _require(device, "storage", device.limits.storage_bytes, held)


def training_memory_bytes(base: Base, longest: int, *, checkpointed: bool = False) -> int:
    """Return what training takes at least: row by row, the longest of ``longest`` tokens."""
    return _beside_activations(base, longest) + _row_bytes(base, longest, checkpointed)


def activation_budget(
    device: Device, base: Base, longest: int, *, checkpointed: bool = False
) -> int:
    """Return what the activations of a forward pass may take on this device, one row at least."""
    if device.limits.memory_bytes is None:
        return ACTIVATION_BYTES
    left = int(device.limits.memory_bytes) - _beside_activations(base, longest)
    return max(_row_bytes(base, longest, checkpointed), min(ACTIVATION_BYTES, left))


def _beside_activations(base: Base, longest: int) -> int:
    """Weights, adapter, gradients, moments, and the logits of the longest row."""
    numbers = sum(weight.numel() for weight in lora_parameters(base.model).values())
    shape = memory.shape_of_network(base.model.config)
    logits = memory.logit_bytes(shape, base.model.dtype.itemsize, longest)
    return device_memory_bytes(base.model) + numbers * _PER_NUMBER + logits


def _row_bytes(base: Base, longest: int, checkpointed: bool) -> int:
    shape, itemsize = memory.shape_of_network(base.model.config), base.model.dtype.itemsize
    return longest * memory.token_bytes(shape, itemsize, longest, checkpointed=checkpointed)


def _require(device: Device, what: str, limit: float | None, needed: int) -> None:
    if limit is not None and needed > limit:
        raise ModelError(
            f"user {device.user_id}: does not fit: {what} of {limit / MIB:.1f} MiB, "
            f"{needed / MIB:.1f} MiB needed; take a smaller device model"
        )
