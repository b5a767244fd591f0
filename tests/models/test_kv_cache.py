"""The cache that writes in place against transformers' own: the same states, the same logits."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache

from conf.schema import CausalModelConfig
from models.kv_cache import RoomyLayer, roomy_cache
from models.loading import load_causal


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_decoder_computes_the_same_with_either_cache(qwen2_folder, dtype):
    model = load_causal(CausalModelConfig(path=str(qwen2_folder), dtype=dtype)).eval()
    ids = torch.randint(0, 400, (5, 12), generator=torch.Generator().manual_seed(0))
    kept = [None, None, torch.tensor([0, 2, 2, 4]), None, torch.tensor([1, 3])]

    @torch.inference_mode()
    def logits(cache) -> list[torch.Tensor]:
        rows, found = ids, []
        found.append(model(input_ids=rows, past_key_values=cache, use_cache=True).logits)
        for chosen in kept:
            if chosen is not None:
                cache.batch_select_indices(chosen)
                rows = rows[chosen]
            found.append(model(input_ids=rows[:, :1], past_key_values=cache, use_cache=True).logits)
        return found

    own, library = roomy_cache(model.config, 17), DynamicCache(config=model.config)
    for one, other in zip(logits(own), logits(library), strict=True):
        assert torch.equal(one, other)
    for one, other in zip(own.layers, library.layers, strict=True):
        assert isinstance(one, RoomyLayer)
        assert torch.equal(one.keys, other.keys)
        assert torch.equal(one.values, other.values)


def test_a_step_copies_nothing_that_was_there():
    layer = RoomyLayer(8)
    first = torch.ones(2, 3, 5, 4)
    keys, _ = layer.update(first, first)
    for _ in range(3):
        more, _ = layer.update(first[:, :, :1] + 1, first[:, :, :1])
        assert more.untyped_storage().data_ptr() == keys.untyped_storage().data_ptr()
    assert layer.get_seq_length() == 8
    assert torch.equal(more[:, :, :5], first)


def test_more_tokens_than_there_is_room_for_are_an_error():
    layer = RoomyLayer(2)
    with pytest.raises(RuntimeError):
        layer.update(torch.ones(1, 1, 3, 4), torch.ones(1, 1, 3, 4))
