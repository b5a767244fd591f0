"""Whoever is answered together gets the answers that they get alone."""

from __future__ import annotations

import pytest
import torch

from conf.errors import ModelError
from conf.schema import QLoraConfig, SamplingConfig
from models import lora
from models.answering import answer_queries
from models.generation import generate
from models.loading import load_device_base, load_tokenizer
from models.multi_lora.stacked import NotStackableError

QLORA = QLoraConfig(compute_dtype="float32", dropout=0.0)
GREEDY = SamplingConfig(temperature=0.0, max_new_tokens=12)
ASKED = [["a fine film", "council", "a fine film"], ["council"], [], ["x", "a quiet bridge"]]


@pytest.fixture(scope="module")
def loaded(qwen2_folder):
    slot = lora.attach(load_device_base(qwen2_folder, QLORA), QLORA, seed=0)
    return slot, load_tokenizer(qwen2_folder)


def strong_adapter(model, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {name: weight.shape for name, weight in lora.lora_parameters(model).items()}
    return {n: torch.randn(shape, generator=generator) * 0.15 for n, shape in shapes.items()}


def alone(loaded, adapter, own):
    """The answers through PEFT's own layers."""
    model, tokenizer = loaded
    seeds = [0] * len(own)
    if adapter is None:
        with lora.disabled(model):
            return generate(model, tokenizer, own, seeds, GREEDY, 64)
    lora.fill(model, adapter, "of a test")
    return generate(model, tokenizer, own, seeds, GREEDY, 64)


@pytest.fixture(params=["stacked", "one by one"])
def adapters(request, loaded, monkeypatch):
    """Three users with adapters of their own and one without."""
    if request.param == "one by one":

        def refuse(*_arguments):
            raise NotStackableError("no")

        monkeypatch.setattr("models.answering.Stack", refuse)
    model, _ = loaded
    return [strong_adapter(model, 0), None, strong_adapter(model, 2), strong_adapter(model, 3)]


@pytest.mark.parametrize("batch_size", [2, 3, 64])
def test_users_answered_together_get_their_own_answers(loaded, adapters, batch_size):
    model, tokenizer = loaded
    before = [(name, id(module)) for name, module in model.named_modules()]
    done = []
    together = answer_queries(
        model, tokenizer, ASKED, adapters, GREEDY, batch_size, on_batch=done.append
    )
    assert [(name, id(module)) for name, module in model.named_modules()] == before
    for own, adapter, answers in zip(ASKED, adapters, together, strict=True):
        assert answers == alone(loaded, adapter, own)
    assert together[0][1] != together[1][0]  # one prompt, two users, two answers
    assert sum(done) == sum(map(len, ASKED))


@pytest.mark.parametrize("seed", [None, 5])
def test_one_adapter_for_all_or_none_needs_no_stack(loaded, monkeypatch, seed):
    model, tokenizer = loaded
    monkeypatch.delattr("models.answering.Stack")
    adapter = None if seed is None else strong_adapter(model, seed)
    answers = answer_queries(model, tokenizer, ASKED, [adapter] * 4, GREEDY, 64)
    flat = alone(loaded, adapter, [prompt for own in ASKED for prompt in own])
    assert [each for own in answers for each in own] == flat
    assert [len(own) for own in answers] == [3, 1, 0, 2]


def test_nobody_asked_gives_nothing(loaded):
    assert answer_queries(*loaded, [], [], GREEDY, 4) == []
    assert answer_queries(*loaded, [[]], [None], GREEDY, 4) == [[]]


def test_an_adapter_of_another_base_is_refused(loaded):
    model, tokenizer = loaded
    odd = {"other": torch.zeros(1)}
    with pytest.raises(ModelError, match="adapter to answer with"):
        answer_queries(model, tokenizer, [["x"]], [odd], GREEDY, 4)
