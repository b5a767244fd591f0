"""Embeddings by a model's own hidden states, against a pass of one text at a time."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from conf.errors import ModelError
from conf.schema import QLoraConfig
from models import loading, lora
from models.chat import encode_text
from models.embedding import embed

TEXTS = ["The council votes on a new bridge tonight.", "a quiet film", "", "comedy classic"]


@pytest.fixture(scope="module")
def base(qwen2_folder):
    qlora = QLoraConfig(compute_dtype="float32")
    model = loading.load_device_base(str(qwen2_folder), qlora, "cpu")
    return lora.attach(model, qlora, seed=0), loading.load_tokenizer(str(qwen2_folder))


def test_vectors_are_means_of_the_last_hidden_states_scaled_to_length_one(base):
    model, tokenizer = base
    found = embed(model, tokenizer, TEXTS, batch_size=3, max_tokens=100)
    ids = torch.tensor([encode_text(tokenizer, TEXTS[0])])
    with torch.no_grad(), lora.disabled(model):
        states = model(input_ids=ids, output_hidden_states=True).hidden_states[-1][0]
    mean = states.mean(0)
    assert found[0].vector == pytest.approx((mean / mean.norm()).numpy(), abs=1e-5)


def test_a_text_without_tokens_has_neither_length_nor_direction(base):
    empty = embed(*base, TEXTS, batch_size=2, max_tokens=100)[2]
    assert not empty.vector.any()
    assert len(empty.masses) == empty.num_parts == 0


def test_the_adapter_in_the_slot_changes_nothing(base):
    model, tokenizer = base
    before = embed(model, tokenizer, TEXTS, batch_size=4, max_tokens=100)
    with torch.no_grad():
        for name, weight in lora.lora_parameters(model).items():
            weight.fill_(0.1 if "lora_B" in name else 0.2)
    after = embed(model, tokenizer, TEXTS, batch_size=4, max_tokens=100)
    assert all(np.array_equal(a.vector, b.vector) for a, b in zip(before, after, strict=True))


def test_long_texts_are_cut_at_the_end(base):
    whole, cut = (embed(*base, [TEXTS[0]], 1, tokens)[0] for tokens in (100, 3))
    assert cut.num_parts == 3 < whole.num_parts
    assert not np.allclose(cut.vector, whole.vector)


def test_token_masses_count_equal_input_embeddings(base):
    _, tokenizer = base
    text = "tonight a film, a film, a film"
    counts = Counter(encode_text(tokenizer, text))
    (found,) = embed(*base, [text], 1, 100, "token")
    assert sorted(found.masses) == sorted(counts.values())
    assert found.num_parts == counts.total() > len(counts)


def test_surprisal_is_the_models_own_loss_of_each_token_but_the_first(base):
    model, tokenizer = base
    found = embed(model, tokenizer, TEXTS, 4, 100, "surprisal")
    for text, each in zip(TEXTS, found, strict=True):
        ids = torch.tensor([encode_text(tokenizer, text)])
        if not ids.numel():
            continue
        with torch.no_grad(), lora.disabled(model):
            logits = model(input_ids=ids).logits[0, :-1]
        expected = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none")
        assert each.masses == pytest.approx(expected.numpy(), rel=1e-4)


def test_hidden_masses_come_from_in_front_of_the_last_normalisation(base):
    model, tokenizer = base
    found = embed(model, tokenizer, TEXTS, 4, 100, "hidden")[0]
    ids = torch.tensor([encode_text(tokenizer, TEXTS[0])])
    with torch.no_grad(), lora.disabled(model):
        seen = model(input_ids=ids, output_hidden_states=True).hidden_states
    behind = seen[-1][0, 1:].norm(dim=-1).numpy()
    assert found.num_parts == ids.numel() - 1
    # behind it all norms are nearly the same, which made the entropy a constant
    assert np.std(found.masses) / np.mean(found.masses) > 100 * np.std(behind) / np.mean(behind)


def test_a_network_without_a_last_normalisation_is_refused_with_the_remedy(base, monkeypatch):
    monkeypatch.setattr("models.embedding.LAST_NORM", "no_such_module")
    with pytest.raises(ModelError, match=r"stream\.entropy=token"):
        embed(*base, TEXTS, 4, 100, "hidden")
