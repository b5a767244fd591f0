"""A device refuses what it cannot hold, and says what would be needed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from clients.base import Base
from clients.capacity import require_capacity
from clients.folder import Device, Limits, Policy
from conf.compose import compose
from conf.errors import ModelError
from lamp.records import UserHistory
from models import loading, lora
from models.quantisation import device_memory_bytes

DEVICE = Device(Path("ana"), UserHistory("ana", (), (), ()), Policy(0.5), b"")


@pytest.fixture(scope="module")
def base(qwen2_folder):
    qlora = compose(["qlora.compute_dtype=float32"]).qlora
    model = loading.load_device_base(str(qwen2_folder), qlora, "cpu")
    return Base(
        lora.attach(model, qlora, 0), loading.load_tokenizer(str(qwen2_folder)), qwen2_folder
    )


def limited(**limits: float) -> Device:
    return replace(DEVICE, limits=Limits(**limits))


def test_without_limits_everything_fits(base):
    require_capacity(DEVICE, base, training=True)


def test_training_needs_gradient_and_two_moments_in_float32_beside_the_weights(base):
    held = device_memory_bytes(base.model)
    numbers = sum(weight.numel() for weight in lora.lora_parameters(base.model).values())
    enough = held + 12 * numbers
    require_capacity(limited(memory_bytes=enough), base, training=True)
    tight = limited(memory_bytes=enough - 1)
    require_capacity(tight, base, training=False)
    with pytest.raises(ModelError, match=r"user ana: does not fit: memory of .* MiB needed"):
        require_capacity(tight, base, training=True)


def test_the_base_must_fit_into_the_storage(base):
    held = device_memory_bytes(base.model)
    require_capacity(limited(storage_bytes=held), base, training=True)
    with pytest.raises(ModelError, match="does not fit: storage"):
        require_capacity(limited(storage_bytes=held - 1), base, training=False)
