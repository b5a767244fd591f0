from __future__ import annotations

import pytest
import torch
from bitsandbytes.nn.modules import Linear4bit

from conf.errors import ModelError
from conf.schema import QLoraConfig
from models import lora
from models.loading import load_device_base
from models.quantisation import DequantisedLinear, dequantise, device_memory_bytes, require_nf4

IDS = torch.arange(48).view(2, 24)


def bases(folder, dtype: str, double_quant: bool = False):
    settings = {"compute_dtype": dtype, "double_quant": double_quant, "dropout": 0.0}
    return (
        load_device_base(folder, QLoraConfig(dequantise_once=False, **settings)),
        load_device_base(folder, QLoraConfig(dequantise_once=True, **settings)),
    )


def adapted(base, seed: int = 3):
    model = lora.attach(base, QLoraConfig(dropout=0.0), seed)
    generator = torch.Generator().manual_seed(seed)
    for name, weight in lora.lora_parameters(model).items():
        if ".lora_B." in name:
            drawn = torch.randn(weight.shape, generator=generator) * 0.1
            weight.data = drawn.to(weight.device)  # the same on any device
    return model


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("double_quant", [False, True])
def test_twin_has_the_logits_of_the_nf4_model(qwen2_folder, dtype, double_quant):
    nf4, twin = bases(qwen2_folder, dtype, double_quant)
    with torch.no_grad():
        expected, got = nf4(IDS).logits, twin(IDS).logits
    # same weights, same kernels on the CPU; a fused GPU kernel may add in another order
    torch.testing.assert_close(got, expected, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_twin_has_the_adapter_gradients_of_the_nf4_model(qwen2_folder, dtype):
    gradients = []
    for base in bases(qwen2_folder, dtype):
        model = adapted(base).train()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            loss = model(input_ids=IDS, labels=IDS).loss
        loss.backward()
        gradients.append({n: w.grad for n, w in lora.lora_parameters(model).items()})
    nf4, twin = gradients
    assert max(gradient.abs().max() for gradient in nf4.values()) > 1e-3
    for name, gradient in nf4.items():
        torch.testing.assert_close(twin[name], gradient, rtol=0, atol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_twin_agrees_with_the_nf4_model_on_a_gpu(qwen2_folder):
    """A fused GPU kernel may add in another order: bfloat16 tolerance."""
    logits, gradients = [], []
    for once in (False, True):
        base = load_device_base(qwen2_folder, QLoraConfig(dequantise_once=once), "cuda:0")
        model = adapted(base).train()
        with torch.autocast("cuda", torch.bfloat16):
            out = model(input_ids=IDS.cuda(), labels=IDS.cuda())
        out.loss.backward()
        logits.append(out.logits.float())
        gradients.append([w.grad for w in lora.lora_parameters(model).values()])
    scale = logits[0].abs().max()
    assert (logits[0] - logits[1]).abs().max() < 0.03 * scale
    for nf4, twin in zip(*gradients, strict=True):
        assert (nf4 - twin).norm() < 0.05 * nf4.norm() + 1e-6


def test_twin_weights_are_what_nf4_can_express(qwen2_folder):
    _, twin = bases(qwen2_folder, "float32")
    layer = twin.get_submodule("model.layers.0.mlp.up_proj")
    assert isinstance(layer, DequantisedLinear)
    for block in layer.weight.view(-1, 64)[:20]:
        assert len(block.unique()) <= 16


def test_nothing_of_the_base_requires_gradients(qwen2_folder):
    for base in bases(qwen2_folder, "bfloat16"):
        trained = {name for name, w in adapted(base).named_parameters() if w.requires_grad}
        assert trained
        assert all(".lora_" in name for name in trained)


@pytest.mark.parametrize("double_quant", [False, True])
def test_device_memory_is_that_of_the_nf4_device(qwen2_folder, double_quant):
    nf4, twin = bases(qwen2_folder, "bfloat16", double_quant)
    assert device_memory_bytes(nf4) == device_memory_bytes(twin)
    assert device_memory_bytes(adapted(nf4)) == device_memory_bytes(adapted(twin))


def test_device_memory_by_hand(qwen2_folder):
    model, _ = bases(qwen2_folder, "bfloat16")
    vocabulary, width, layers, key_value, feed_forward = model.config.vocab_size, 64, 2, 32, 128
    matrices = 2 * width * width + 2 * key_value * width + 3 * feed_forward * width  # per layer
    tables = 7 * 16 * 4  # the 16 values of NF4, kept by each matrix
    block_constants = matrices // 64 * 4
    biases_and_norms = (width + 2 * key_value) + 2 * width
    unquantised = vocabulary * width + layers * biases_and_norms + width
    expected = layers * (matrices // 2 + block_constants + tables) + 2 * unquantised
    assert device_memory_bytes(model) == expected
    rank = 16
    shapes = [(width, width)] * 2 + [(key_value, width)] * 2 + [(feed_forward, width)] * 3
    adapter = layers * sum(rank * (d_out + d_in) for d_out, d_in in shapes)
    assert device_memory_bytes(adapted(model)) == expected + 4 * adapter


def test_a_plain_layer_is_refused(qwen2_folder):
    model, _ = bases(qwen2_folder, "bfloat16")
    model.set_submodule("model.layers.1.mlp.up_proj", torch.nn.Linear(64, 128))
    with pytest.raises(ModelError, match=r"layers\.1\.mlp\.up_proj: expected nf4.*float32"):
        require_nf4(model, torch.bfloat16)


def test_fp4_is_refused():
    model = torch.nn.Sequential(Linear4bit(64, 64, quant_type="fp4").to("cpu"))
    with pytest.raises(ModelError, match="layer 0: expected nf4 weights, got fp4"):
        require_nf4(model, torch.bfloat16)


def test_repacked_weights_are_refused(qwen2_folder):
    model, _ = bases(qwen2_folder, "bfloat16")
    model.get_submodule("model.layers.0.mlp.up_proj").weight.quant_state.packing_format_for_cpu = 1
    with pytest.raises(ModelError, match="expected untouched NF4 weights"):
        dequantise(model)
