"""The planner against measured peaks, and against what can be counted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from conf.schema import QLoraConfig
from models import lora, memory
from models.loading import load_device_base
from models.quantisation import device_memory_bytes
from models.shape import Shape

ROOT = Path(__file__).resolve().parents[2]
QWEN_HALF = Shape(
    layers=24, width=896, feed_forward=4864, heads=14, kv_heads=2, head_width=64, vocabulary=151_936
)


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
@pytest.mark.slow
@pytest.mark.long
def test_planned_bytes_are_within_a_fifth_of_measured_peaks():
    freed_at_once = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.models.measure_peaks"],
        cwd=ROOT,
        env={**os.environ, **freed_at_once, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    rows = json.loads(done.stdout.splitlines()[-1])
    assert len(rows) >= 8
    odd = [row for row in rows if not 0.8 < row[-1] / row[-2] < 1.2]
    assert not odd


def test_weights_are_those_of_a_loaded_network(qwen2_folder):
    for twin in (False, True):
        qlora = QLoraConfig(compute_dtype="bfloat16", dequantise_once=twin)
        model = load_device_base(qwen2_folder, qlora)
        shape = memory.shape_of_network(model.config)
        planned = memory.weight_bytes(shape, 2, "nf4", double_quant=qlora.double_quant)
        assert planned == pytest.approx(device_memory_bytes(model), rel=0.1)  # norms, small layers
        if twin:
            held = sum(weight.numel() * weight.element_size() for weight in model.parameters())
            assert memory.weight_bytes(shape, 2, "twin") == pytest.approx(held, rel=0.03)


def test_an_adapters_numbers_are_those_of_the_slot(qwen2_folder):
    qlora = QLoraConfig(rank=4)
    slot = lora.attach(load_device_base(qwen2_folder, qlora), qlora, seed=0)
    numbers = sum(weight.numel() for weight in lora.lora_parameters(slot).values())
    assert memory.shape_of_network(slot.config).adapter_parameters(4) == numbers


def planned(**changes) -> memory.Plan:
    settings = {"rank": 16, "itemsize": 2, "tokens": 4096, "scored": 512, **changes}
    return memory.training(QWEN_HALF, **settings)


def test_users_share_the_network_and_nothing_else():
    one, four = planned(), planned(users=4, tokens=4 * 4096, scored=4 * 512)
    assert one.weights == four.weights
    assert four.optimizer == 4 * one.optimizer
    assert four.activations == 4 * one.activations
    assert one.adapters < four.adapters < 4 * one.adapters
    assert one.total == sum((one.weights, one.adapters, one.optimizer, one.activations, one.logits))


def test_the_vocabularys_part_is_bounded_by_the_chunk():
    assert memory.logit_bytes(QWEN_HALF, 2, 100_000) == memory.logit_bytes(QWEN_HALF, 2, 96)
    assert memory.logit_bytes(QWEN_HALF, 2, 96) < 256 << 20


def test_codes_take_somewhat_more_than_a_quarter_of_the_twin():
    linear = replace(QWEN_HALF, vocabulary=0)
    nf4, twin = (memory.weight_bytes(linear, 2, form) for form in ("nf4", "twin"))
    assert twin / nf4 == pytest.approx(2 / (0.5 + 4 / 64), rel=0.001)


def test_a_cache_grows_with_prompts_and_tokens():
    settings = {"itemsize": 2, "prompt_tokens": 500, "new_tokens": 100}
    one, many = (memory.answering(QWEN_HALF, prompts=n, **settings).cache for n in (1, 32))
    assert many == 32 * one
    assert one == 600 * 2 * 2 * 64 * 2 * 25
