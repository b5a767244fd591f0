from __future__ import annotations

import json
import math
import shutil
import time

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from conf.errors import ModelError
from conf.schema import CausalModelConfig, QLoraConfig
from models import lora
from models.loading import load_causal, load_device_base

IDS = torch.arange(48).view(2, 24)
QLORA = QLoraConfig()


@pytest.fixture(scope="module")
def model(qwen2_folder):
    return lora.attach(load_device_base(qwen2_folder, QLORA), QLORA, seed=1)


def scramble(model, seed: int) -> None:
    """Give the slot weights that matter, as training would."""
    generator = torch.Generator().manual_seed(seed)
    for weight in lora.lora_parameters(model).values():
        weight.data = torch.randn(weight.shape, generator=generator) * 0.1


def state(model) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in lora.lora_parameters(model).items()}


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def test_every_linear_layer_but_the_output_layer_is_adapted(model):
    names = lora.lora_parameters(model)
    assert len(names) == 2 * 7 * 2  # layers, matrices, A and B
    assert not any("lm_head" in name or "embed" in name for name in names)
    assert {weight.dtype for weight in names.values()} == {torch.float32}


def test_only_the_slot_requires_gradients(model):
    trained = {id(weight) for weight in model.parameters() if weight.requires_grad}
    assert trained == {id(weight) for weight in lora.lora_parameters(model).values()}


def test_rank_and_scaling_come_from_the_configuration(qwen2_folder):
    qlora = QLoraConfig(rank=4, alpha=6)
    model = lora.attach(load_device_base(qwen2_folder, qlora), qlora, seed=0)
    layer = model.get_submodule("base_model.model.model.layers.0.self_attn.q_proj")
    assert layer.lora_A["default"].weight.shape == (4, 64)
    assert layer.lora_B["default"].weight.shape == (64, 4)
    assert layer.scaling["default"] == 1.5


def test_a_fresh_slot_changes_nothing(model):
    lora.reset(model, seed=5)
    with_slot = logits(model)
    with lora.disabled(model):
        assert torch.equal(logits(model), with_slot)


def test_reset_forgets_the_user_before(model):
    lora.reset(model, seed=5)
    first = state(model)
    scramble(model, seed=0)
    for weight in lora.lora_parameters(model).values():
        weight.grad = torch.ones_like(weight)
    lora.reset(model, seed=5)
    assert all(torch.equal(weight, first[name]) for name, weight in state(model).items())
    assert all(weight.grad is None for weight in lora.lora_parameters(model).values())
    lora.reset(model, seed=6)
    assert not all(torch.equal(weight, first[name]) for name, weight in state(model).items())


def test_reset_draws_what_peft_draws(qwen2_folder):
    """Same bounds and spread as a fresh PEFT adapter: uniform within 1/sqrt(d_in), B zero."""
    config = LoraConfig(r=64, target_modules=["gate_proj"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        base = load_causal(CausalModelConfig(path=str(qwen2_folder), dtype="float32"))
        peft = get_peft_model(base, config)
    theirs = state(peft)
    lora.reset(peft, seed=0)
    for name, ours in state(peft).items():
        if ".lora_B." in name:
            assert not ours.any()
            assert not theirs[name].any()
            continue
        bound = 1 / math.sqrt(64)
        for values in (ours, theirs[name]):
            assert values.abs().max() <= bound
            assert values.abs().max() > 0.99 * bound
            assert values.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.03)


def test_attach_and_reset_leave_the_global_generator_alone(qwen2_folder):
    before = torch.get_rng_state()
    lora.reset(lora.attach(load_device_base(qwen2_folder, QLORA), QLORA, seed=1), seed=2)
    assert torch.equal(torch.get_rng_state(), before)


def test_reset_is_fast(model):
    lora.reset(model, seed=0)
    times = []
    for seed in range(20):
        started = time.perf_counter()
        lora.reset(model, seed)
        times.append(time.perf_counter() - started)
    assert min(times) < 0.005


def test_disabled_answers_with_the_base_alone(model):
    lora.reset(model, seed=0)
    bare = logits(model)
    scramble(model, seed=1)
    assert not torch.equal(logits(model), bare)
    with lora.disabled(model):
        assert torch.equal(logits(model), bare)
    assert all(weight.requires_grad for weight in lora.lora_parameters(model).values())
    assert not torch.equal(logits(model), bare)


@pytest.mark.parametrize("dequantise_once", [False, True])
def test_plain_peft_loads_a_saved_adapter_with_the_same_logits(
    qwen2_folder, tmp_path, dequantise_once
):
    qlora = QLoraConfig(dequantise_once=dequantise_once)
    model = lora.attach(load_device_base(qwen2_folder, qlora), qlora, seed=1)
    scramble(model, seed=2)
    lora.save(model, tmp_path)
    plain = PeftModel.from_pretrained(load_device_base(qwen2_folder, qlora), tmp_path).eval()
    assert torch.equal(logits(plain), logits(model))


def test_load_restores_what_was_saved(model, tmp_path):
    scramble(model, seed=3)
    saved = state(model)
    lora.save(model, tmp_path)
    lora.reset(model, seed=0)
    lora.load(model, tmp_path)
    assert all(torch.equal(weight, saved[name]) for name, weight in state(model).items())


def test_peft_s_own_folder_loads_too(model, tmp_path):
    scramble(model, seed=4)
    saved = state(model)
    model.save_pretrained(tmp_path, save_embedding_layers=False)
    lora.reset(model, seed=0)
    lora.load(model, tmp_path)
    assert all(torch.equal(weight, saved[name]) for name, weight in state(model).items())


def test_equal_weights_give_equal_bytes_without_any_path(model, tmp_path, qwen2_folder):
    for name in ("one", "two"):
        lora.reset(model, seed=9)
        lora.save(model, tmp_path / name)
    for name in (lora.CONFIG_FILE, lora.WEIGHTS_FILE):
        content = (tmp_path / "one" / name).read_bytes()
        assert content == (tmp_path / "two" / name).read_bytes()
        assert str(qwen2_folder).encode() not in content
    assert len(list((tmp_path / "one").iterdir())) == 2


def damage(folder, tensors=None, **config) -> None:
    if tensors is not None:
        save_file(tensors, folder / lora.WEIGHTS_FILE)
    path = folder / lora.CONFIG_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | config))


def test_adapter_that_does_not_fit_is_refused_and_changes_nothing(model, tmp_path):
    scramble(model, seed=5)
    lora.save(model, tmp_path / "good")
    tensors = load_file(tmp_path / "good" / lora.WEIGHTS_FILE)
    name = next(iter(tensors))
    one_less = {key: value for key, value in tensors.items() if key != name}
    one_more = {**tensors, "extra": torch.zeros(1)}
    other_shape = {**tensors, name: torch.zeros(3, 3)}
    cases = [
        ({"tensors": one_less}, "1 other or missing"),
        ({"tensors": one_more}, r"1 other or missing \(extra\)"),
        ({"tensors": other_shape}, r"of shape \(16, \d+\), got \(3, 3\)"),
        ({"r": 8}, "expected r=16, got 8"),
        ({"lora_alpha": 99}, "expected lora_alpha=8.0, got 99"),
        ({"use_dora": True}, "expected use_dora=False, got True"),
        ({"peft_type": "IA3"}, "expected peft_type=LORA, got IA3"),
    ]
    lora.reset(model, seed=0)
    before = state(model)
    for number, (change, message) in enumerate(cases):
        folder = shutil.copytree(tmp_path / "good", tmp_path / f"bad{number}")
        damage(folder, **change)
        with pytest.raises(ModelError, match=rf"adapter bad{number}: .*{message}.*; train it"):
            lora.load(model, folder)
    assert all(torch.equal(weight, before[name]) for name, weight in state(model).items())


@pytest.mark.parametrize("missing", [lora.CONFIG_FILE, lora.WEIGHTS_FILE])
def test_incomplete_or_torn_adapter_folder_is_refused(model, tmp_path, missing):
    lora.save(model, tmp_path)
    (tmp_path / missing).write_bytes((tmp_path / missing).read_bytes()[:40])
    with pytest.raises(ModelError, match=f"expected a readable {missing}"):
        lora.load(model, tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(ModelError, match=f"expected a readable {missing}, got FileNotFoundError"):
        lora.load(model, tmp_path)


def test_model_without_linear_layers_is_refused():
    with pytest.raises(ModelError, match="expected linear layers to adapt"):
        lora.attach(torch.nn.Sequential(torch.nn.ReLU()), QLORA, seed=0)
