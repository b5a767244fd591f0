from __future__ import annotations

import json
import logging
import shutil

import pytest
import torch
from bitsandbytes.nn.modules import Linear4bit
from safetensors.torch import load_file, save_file

from conf.errors import ModelError
from conf.schema import CausalModelConfig, QLoraConfig
from models.loading import (
    load_causal,
    load_device_base,
    load_tokenizer,
    quantise_folder,
    save_nf4,
)

NF4 = QLoraConfig(dequantise_once=False)


@pytest.fixture
def own_folder(qwen2_folder, tmp_path):
    return shutil.copytree(qwen2_folder, tmp_path / "own")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_load_causal_uses_the_stated_type_and_eval_mode(qwen2_folder, dtype):
    model = load_causal(CausalModelConfig(path=str(qwen2_folder), dtype=dtype))
    assert {weight.dtype for weight in model.parameters()} == {getattr(torch, dtype)}
    assert not model.training


def test_every_linear_layer_but_the_output_layer_is_nf4(qwen2_folder):
    model = load_device_base(qwen2_folder, NF4)
    linear = {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    quantised = {name for name, layer in linear.items() if isinstance(layer, Linear4bit)}
    assert quantised == set(linear) - {"lm_head"}
    assert len(quantised) == 2 * 7
    assert {linear[name].weight.quant_type for name in quantised} == {"nf4"}
    assert {linear[name].compute_dtype for name in quantised} == {torch.bfloat16}


@pytest.mark.parametrize("double_quant", [False, True])
def test_saved_nf4_loads_without_being_quantised_again(qwen2_folder, tmp_path, double_quant):
    qlora = QLoraConfig(dequantise_once=False, double_quant=double_quant)
    model = load_device_base(qwen2_folder, qlora)
    size = save_nf4(model, tmp_path)
    again = load_device_base(tmp_path, qlora)
    assert size == (tmp_path / "model.safetensors").stat().st_size
    saved = json.loads((tmp_path / "config.json").read_text())["quantization_config"]
    assert saved["bnb_4bit_quant_type"] == "nf4"
    ids = torch.arange(20).unsqueeze(0)
    with torch.no_grad():
        assert torch.equal(model(ids).logits, again(ids).logits)


def test_answering_does_not_change_what_is_saved(qwen2_folder, tmp_path):
    model = load_device_base(qwen2_folder, NF4)
    save_nf4(model, tmp_path / "before")
    with torch.no_grad():
        model(torch.arange(20).unsqueeze(0))  # bitsandbytes would repack its weights here
    save_nf4(model, tmp_path / "after")
    before = (tmp_path / "before" / "model.safetensors").read_bytes()
    assert (tmp_path / "after" / "model.safetensors").read_bytes() == before


def test_quantise_folder_returns_the_bytes_to_download(qwen2_folder, tmp_path):
    size = quantise_folder(qwen2_folder, tmp_path, QLoraConfig())
    plain = (qwen2_folder / "model.safetensors").stat().st_size
    assert 0 < size < plain / 2
    assert load_device_base(tmp_path, QLoraConfig()).dtype == torch.bfloat16


def test_a_twin_cannot_be_saved_as_nf4(qwen2_folder, tmp_path):
    twin = load_device_base(qwen2_folder, QLoraConfig(dequantise_once=True))
    with pytest.raises(ModelError, match="save before dequantising"):
        save_nf4(twin, tmp_path)


@pytest.mark.parametrize(
    ("key", "value"), [("bnb_4bit_quant_type", "fp4"), ("bnb_4bit_use_double_quant", True)]
)
def test_checkpoint_quantised_otherwise_is_refused(qwen2_folder, tmp_path, key, value):
    save_nf4(load_device_base(qwen2_folder, NF4), tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    config["quantization_config"][key] = value
    path.write_text(json.dumps(config))
    with pytest.raises(ModelError, match=rf"saved with {key}=.*, got {value}; check model"):
        load_device_base(tmp_path, NF4)


@pytest.mark.parametrize("path", ["built", "/nowhere/at/all", "./missing", "a/b/c", "nowhere"])
def test_missing_folder_names_it_and_the_remedy(path):
    with pytest.raises(ModelError, match=rf"{path}.*expected a folder"):
        load_causal(CausalModelConfig(path=path))


def test_folder_without_a_config_is_an_error(tmp_path):
    with pytest.raises(ModelError, match=r"no config\.json in it; check model"):
        load_causal(CausalModelConfig(path=str(tmp_path)))


def test_missing_weight_is_an_error_not_a_random_one(own_folder):
    path = own_folder / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.layers.0.mlp.up_proj.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"got 1 missing or of another shape \(model.layers.0.m"):
        load_causal(CausalModelConfig(path=str(own_folder)))


def test_cut_off_weights_are_an_error(own_folder):
    path = own_folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelError, match="expected a causal language model, got SafetensorError"):
        load_causal(CausalModelConfig(path=str(own_folder)))


def test_broken_config_is_an_error(own_folder):
    (own_folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match="got OSError"):
        load_causal(CausalModelConfig(path=str(own_folder)))


def test_weights_of_another_shape_are_an_error(own_folder):
    path = own_folder / "config.json"
    config = json.loads(path.read_text())
    config["intermediate_size"] = 256
    path.write_text(json.dumps(config))
    with pytest.raises(ModelError, match="got 6 missing or of another shape"):
        load_causal(CausalModelConfig(path=str(own_folder)))


def test_folder_without_a_tokenizer_is_an_error(own_folder):
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (own_folder / name).unlink()
    with pytest.raises(ModelError, match="expected a tokenizer"):
        load_tokenizer(own_folder)


def test_loading_is_silent(qwen2_folder, capfd, caplog):
    with caplog.at_level(logging.WARNING):
        load_device_base(qwen2_folder, NF4)
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""
    assert not caplog.records
