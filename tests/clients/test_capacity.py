"""A device refuses what it cannot hold, and says what would be needed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from clients.base import Base
from clients.capacity import (
    activation_budget,
    checkpointing_of,
    require_capacity,
    training_memory_bytes,
)
from clients.folder import Device, Limits, Policy
from conf.compose import compose
from conf.errors import ModelError
from lamp.records import UserHistory
from models import loading, lora, memory
from models.multi_lora.cohort import ACTIVATION_BYTES
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


ROW = 200  # tokens


def numbers(base) -> int:
    return sum(weight.numel() for weight in lora.lora_parameters(base.model).values())


def activations(base, tokens: int = ROW) -> int:
    shape = memory.shape_of_network(base.model.config)
    return tokens * memory.token_bytes(shape, 4, tokens) + memory.logit_bytes(shape, 4, tokens)


def logits(base) -> int:
    return memory.logit_bytes(memory.shape_of_network(base.model.config), 4, ROW)


def test_without_limits_everything_fits(base):
    require_capacity(DEVICE, base, ROW)
    assert activation_budget(DEVICE, base, ROW) == ACTIVATION_BYTES


def test_training_needs_gradient_two_moments_and_a_rows_activations_beside_the_weights(base):
    held = device_memory_bytes(base.model)
    enough = held + 12 * numbers(base) + activations(base)
    assert training_memory_bytes(base, ROW) == enough
    require_capacity(limited(memory_bytes=enough), base, ROW)
    tight = limited(memory_bytes=enough - 1)
    require_capacity(tight, base)
    require_capacity(tight, base, ROW - 1)
    with pytest.raises(ModelError, match=r"user ana: does not fit: memory of .* MiB needed"):
        require_capacity(tight, base, ROW)


def test_a_device_that_holds_no_row_otherwise_checkpoints_its_gradients(base):
    plain = training_memory_bytes(base, ROW)
    checkpointed = training_memory_bytes(base, ROW, checkpointed=True)
    assert checkpointed < plain
    tight = limited(memory_bytes=checkpointed)
    assert checkpointing_of(tight, base, ROW, "auto") is True
    assert checkpointing_of(tight, base, ROW, False) is False
    assert checkpointing_of(limited(memory_bytes=plain), base, ROW, "auto") == "auto"
    assert checkpointing_of(DEVICE, base, ROW, True) is True
    require_capacity(tight, base, ROW, checkpointed=True)
    with pytest.raises(ModelError, match="does not fit: memory"):
        require_capacity(limited(memory_bytes=checkpointed - 1), base, ROW, checkpointed=True)
    row = checkpointed - (plain - activations(base) + logits(base))
    assert activation_budget(tight, base, ROW, checkpointed=True) == row


def test_a_tight_device_trains_in_micro_batches_that_fit(base):
    enough = training_memory_bytes(base, ROW)
    row = activations(base) - logits(base)
    assert activation_budget(limited(memory_bytes=enough), base, ROW) == row
    assert activation_budget(limited(memory_bytes=enough + 1000), base, ROW) == row + 1000
    assert activation_budget(limited(memory_bytes=1 << 40), base, ROW) == ACTIVATION_BYTES


def test_the_base_must_fit_into_the_storage(base):
    held = device_memory_bytes(base.model)
    require_capacity(limited(storage_bytes=held), base, ROW)
    with pytest.raises(ModelError, match="does not fit: storage"):
        require_capacity(limited(storage_bytes=held - 1), base)
