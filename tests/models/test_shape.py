"""Shapes of networks, read from a checkpoint's files, against the loaded network."""

from __future__ import annotations

import json

import pytest

from conf.schema import CausalModelConfig, QLoraConfig
from models import loading, lora
from models.gguf_header import read_header
from models.shape import shape_of
from tests.plugins import tiny_gguf


def test_a_folder_tells_weights_and_adapter_of_the_loaded_network(qwen2_folder, tmp_path):
    config = CausalModelConfig(path=str(qwen2_folder), dtype="float32")
    shape = shape_of(config, tmp_path)
    model = loading.load_causal(config)
    matrices = [w for n, w in model.named_parameters() if w.ndim == 2]
    assert shape is not None
    assert shape.parameters == sum(weight.numel() for weight in matrices)
    slot = lora.attach(model, QLoraConfig(rank=3), seed=0)
    trained = sum(weight.numel() for weight in lora.lora_parameters(slot).values())
    assert shape.adapter_parameters(3) == trained


def test_a_name_on_the_hub_has_no_shape_here(tmp_path):
    assert shape_of(CausalModelConfig(path="org/name"), tmp_path) is None


def test_a_network_of_another_kind_has_none_either(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"n_layer": 2}))
    assert shape_of(CausalModelConfig(path=str(tmp_path)), tmp_path) is None


@pytest.mark.parametrize("tied", [True, False])
def test_a_gguf_file_tells_its_shape_by_its_header(tmp_path, tied):
    file = tiny_gguf.write(tmp_path / "model.gguf", tied=tied)
    shape = shape_of(CausalModelConfig(path=str(file)), tmp_path)
    assert shape is not None
    assert (shape.layers, shape.width) == (tiny_gguf.LAYERS, tiny_gguf.WIDTH)
    matrices = {n: v for n, v in read_header(file).tensors.items() if "norm" not in n}
    assert shape.parameters == sum(matrices.values())
