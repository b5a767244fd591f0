"""An adapter in the base's weights says what it says beside them, up to rounding."""

from __future__ import annotations

import pytest
import torch

from conf.errors import ModelError
from conf.schema import QLoraConfig, SamplingConfig
from models import lora
from models.answering import answer_queries
from models.loading import load_device_base, load_tokenizer
from models.merging import merged

GREEDY = SamplingConfig(temperature=0.0, max_new_tokens=12)
ASKED = [["a fine film", "council", "a fine film"], ["council"], ["x", "a quiet bridge"]]


def slot(folder, dtype="float32", **settings):
    qlora = QLoraConfig(compute_dtype=dtype, dropout=0.0, **settings)
    return lora.attach(load_device_base(folder, qlora), qlora, seed=0)


@pytest.fixture(scope="module")
def in_float32(qwen2_folder):
    return slot(qwen2_folder)


def strong(model, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {name: weight.shape for name, weight in lora.lora_parameters(model).items()}
    return {n: torch.randn(shape, generator=generator) * 0.15 for n, shape in shapes.items()}


@torch.inference_mode()
def logits(network) -> torch.Tensor:
    return network(input_ids=torch.arange(3, 23)[None]).logits.float()


def apart(model, adapter) -> torch.Tensor:
    lora.fill(model, adapter, "of a test")
    return logits(model)


def test_logits_are_those_of_base_and_adapter_apart(in_float32):
    adapter = strong(in_float32, 1)
    expected = apart(in_float32, adapter)
    with lora.disabled(in_float32):
        base = logits(in_float32)
    with merged(in_float32, adapter) as network:
        found = logits(network)
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()
    assert (base - expected).abs().max() > 0.1 * expected.abs().max()  # far more


def test_in_bfloat16_the_sum_is_no_further_from_float32_than_its_parts(qwen2_folder, in_float32):
    model, distances = slot(qwen2_folder, "bfloat16"), []
    for seed in range(3):
        adapter = strong(model, seed)
        exact, parts = apart(in_float32, adapter), apart(model, adapter)
        with merged(model, adapter) as network:
            found = logits(network)
        distances.append([(each - exact).norm() for each in (parts, found)])
    parts, sums = torch.tensor(distances).mean(0)
    assert 0 < sums < 1.5 * parts


def test_users_get_the_answers_that_they_get_apart(in_float32, qwen2_folder):
    tokenizer = load_tokenizer(qwen2_folder)
    adapters = [strong(in_float32, 0), None, strong(in_float32, 2)]
    settings = in_float32, tokenizer, ASKED, adapters, GREEDY, 64
    apart = answer_queries(*settings)
    assert answer_queries(*settings, merge=True) == apart
    assert apart[0][1] != apart[1][0]  # one prompt, two users, two answers
    one = strong(in_float32, 3)
    settings = in_float32, tokenizer, ASKED, [one] * 3, GREEDY, 64
    assert answer_queries(*settings, merge=True) == answer_queries(*settings)


def test_the_base_is_left_to_the_last_bit(in_float32):
    before = {name: weight.clone() for name, weight in in_float32.state_dict().items()}
    modules = [(name, id(module)) for name, module in in_float32.named_modules()]
    with merged(in_float32, strong(in_float32, 4)) as network:
        assert not any(name.endswith("lora_A") for name, _ in network.named_modules())
    assert [(name, id(module)) for name, module in in_float32.named_modules()] == modules
    assert all(torch.equal(w, before[n]) for n, w in in_float32.state_dict().items())


def test_weights_in_four_bits_and_odd_adapters_are_refused(qwen2_folder, in_float32):
    model = slot(qwen2_folder, dequantise_once=False)
    modules = [(name, id(module)) for name, module in model.named_modules()]
    with pytest.raises(ModelError, match="dequantise_once=true"), merged(model, strong(model, 0)):
        pass
    assert [(name, id(module)) for name, module in model.named_modules()] == modules
    with (
        pytest.raises(ModelError, match="adapter to answer with"),
        merged(in_float32, {"other": torch.zeros(1)}),
    ):
        pass
