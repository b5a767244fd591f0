"""Whether a device has room for the base model and for training an adapter.

What training needs is counted from below: weights as the NF4 device holds them, and for each number
of the adapter its float32 gradient and AdamW's two moments. Activations come on top; they depend on
how the device computes, and are not counted.
"""

from __future__ import annotations

from clients.base import Base
from clients.folder import Device
from conf.errors import ModelError
from models.lora import lora_parameters
from models.quantisation import device_memory_bytes

_PER_NUMBER = 3 * 4  # gradient and two moments in float32
MIB = 1 << 20


def require_capacity(device: Device, base: Base, *, training: bool) -> None:
    """Refuse what the device cannot hold.

    Args:
        device: Whose limits count.
        base: Base model with its adapter slot.
        training: Whether the adapter is to be trained, or only to answer.

    Raises:
        ModelError: If memory or storage is too small.
    """
    held = device_memory_bytes(base.model)
    needed = training_memory_bytes(base) if training else held
    _require(device, "memory", device.limits.memory_bytes, needed)
    _require(device, "storage", device.limits.storage_bytes, held)


def training_memory_bytes(base: Base) -> int:
    """Return what training an adapter takes: weights, adapter, gradients and AdamW's moments."""
    numbers = sum(weight.numel() for weight in lora_parameters(base.model).values())
    return device_memory_bytes(base.model) + numbers * _PER_NUMBER


def _require(device: Device, what: str, limit: float | None, needed: int) -> None:
    if limit is not None and needed > limit:
        raise ModelError(
            f"user {device.user_id}: does not fit: {what} of {limit / MIB:.1f} MiB, "
            f"{needed / MIB:.1f} MiB needed; take a smaller device model"
        )
