"""GGUF files that others read back: the ``gguf`` package, transformers' loader, llama.cpp."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader, quants
from transformers import AutoModelForCausalLM, AutoTokenizer

from conf.errors import ModelError
from conf.schema import QLoraConfig
from models import lora
from models.chat import encode_prompt
from models.llamacpp import export
from models.llamacpp.layout import layout_of
from models.llamacpp.runtime import Runtime
from tests.plugins import llama, qwen2

TEXT = "  In 2024 the council votes on 3 bridges: ½ of them, “quietly”.\n\n\tYes?"
QLORA = QLoraConfig(rank=4, alpha=8, compute_dtype="float32")


def _qwen2() -> export.Network:
    tokenizer = qwen2.build_tokenizer()
    model = qwen2.build_model(tokenizer)
    return export.Network(model.config, model.state_dict(), tokenizer)


def _llama(*, tied: bool = True) -> export.Network:
    model, tokenizer = llama.build(tied=tied)
    return export.Network(model.config, model.state_dict(), tokenizer)


NETWORKS: dict[str, Callable[[], export.Network]] = {
    "qwen2": _qwen2,
    "llama": _llama,
    "llama, untied": lambda: _llama(tied=False),
}


def _in_f16(network: export.Network) -> export.Network:
    """The network with the numbers that an F16 file can hold."""
    state = {
        name: weight.half().float() if weight.ndim > 1 else weight
        for name, weight in network.state.items()
    }
    return export.Network(network.config, state, network.tokenizer)


def _model(network: export.Network) -> Any:
    model = AutoModelForCausalLM.from_config(network.config).eval()
    model.load_state_dict(network.state)
    return model


@torch.inference_mode()
def _logits(model: Any, ids: list[int]) -> np.ndarray:
    found: np.ndarray = model(torch.tensor([ids])).logits[0].numpy()
    return found


def _fields(path: Path) -> dict[str, Any]:
    return {name: field.contents() for name, field in GGUFReader(path).fields.items()}


def _adapter(network: export.Network, folder: Path) -> export.Adapter:
    """A PEFT folder with random matrices, as training leaves one, read back."""
    slot = lora.attach(_model(network), QLORA, seed=1)
    generator = torch.Generator().manual_seed(2)
    weights = {
        name: torch.randn(weight.shape, generator=generator) * 0.1
        for name, weight in lora.lora_parameters(slot).items()
    }
    lora.save_state(slot, weights, folder)
    return export.read_adapter(folder)


@pytest.mark.parametrize("kind", NETWORKS)
def test_transformers_reads_an_exported_base_back_to_equal_logits(
    kind: str, tmp_path: Path
) -> None:
    network = _in_f16(NETWORKS[kind]())
    export.write_base(network, "f16", tmp_path / "base.gguf", "a base")
    read = AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="base.gguf", dtype=torch.float32
    ).eval()
    ids = network.tokenizer.encode(TEXT)
    np.testing.assert_array_equal(_logits(read, ids), _logits(_model(network), ids))


@pytest.mark.parametrize("kind", NETWORKS)
def test_tokenizer_template_and_sizes_are_in_the_file(kind: str, tmp_path: Path) -> None:
    network = NETWORKS[kind]()
    export.write_base(network, "q8_0", tmp_path / "base.gguf", "a base")
    fields, tokenizer = _fields(tmp_path / "base.gguf"), network.tokenizer
    architecture = network.config.model_type
    assert fields["general.architecture"] == architecture
    assert fields[f"{architecture}.block_count"] == 2
    assert fields[f"{architecture}.rope.freq_base"] == network.config.rope_parameters["rope_theta"]
    assert fields["tokenizer.ggml.pre"] == ("qwen2" if architecture == "qwen2" else "smollm")
    assert fields["tokenizer.ggml.eos_token_id"] == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert fields["tokenizer.ggml.add_bos_token"] is False
    assert fields["tokenizer.chat_template"] == tokenizer.chat_template
    assert len(fields["tokenizer.ggml.tokens"]) == network.config.vocab_size
    read = AutoTokenizer.from_pretrained(tmp_path, gguf_file="base.gguf")
    assert read.encode("a quiet film") == tokenizer.encode("a quiet film")


def test_control_tokens_are_no_text_and_spare_rows_are_unused(tmp_path: Path) -> None:
    network = _qwen2()
    export.write_base(network, "f16", tmp_path / "base.gguf", "a base")
    types = _fields(tmp_path / "base.gguf")["tokenizer.ggml.token_type"]
    assert types[network.tokenizer.convert_tokens_to_ids("<|im_end|>")] == 3  # control
    assert types[network.tokenizer.convert_tokens_to_ids("<tool_call>")] == 4  # user-defined
    assert types[-1] == 5  # unused


def test_rows_of_llamas_rotary_pairs_stand_together() -> None:
    layout = layout_of(_llama().config)  # 6 heads of 16 rows
    rows = np.arange(96.0)
    ordered = layout.ordered("model.layers.0.self_attn.q_proj.weight", rows)
    assert ordered[:4].tolist() == [0.0, 8.0, 1.0, 9.0]
    assert ordered[16:18].tolist() == [16.0, 24.0]
    untouched = layout.ordered("model.layers.0.self_attn.v_proj.weight", rows)
    assert untouched.tolist() == rows.tolist()


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_an_adapter_lies_beside_its_base_by_name_shape_and_order(kind: str, tmp_path: Path) -> None:
    network = NETWORKS[kind]()
    adapter = _adapter(network, tmp_path / "peft")
    export.write_adapter(adapter, network.config, tmp_path / "adapter.gguf", "an adapter")
    fields = _fields(tmp_path / "adapter.gguf")
    assert (fields["general.type"], fields["adapter.type"]) == ("adapter", "lora")
    assert fields["adapter.lora.alpha"] == QLORA.alpha
    tensors = {each.name: each for each in GGUFReader(tmp_path / "adapter.gguf").tensors}
    assert len(tensors) == 2 * 7 * network.config.num_hidden_layers
    layout = layout_of(network.config)
    for module, (first, second) in adapter.modules.items():
        name = layout.name(f"{module}.weight")
        product = tensors[f"{name}.lora_b"].data.astype("f4") @ tensors[
            f"{name}.lora_a"
        ].data.astype("f4")
        expected = layout.ordered(f"{module}.weight", (second @ first).numpy())
        np.testing.assert_allclose(product, expected, atol=2e-3)


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_a_merged_file_answers_as_peft_does(kind: str, tmp_path: Path) -> None:
    network = NETWORKS[kind]()
    adapter = _adapter(network, tmp_path / "peft")
    whole = _in_f16(export.merged(network, adapter))
    export.write_base(whole, "f16", tmp_path / "merged.gguf", "merged")
    read = AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="merged.gguf", dtype=torch.float32
    ).eval()
    slot = lora.attach(_model(network), QLORA, seed=0)
    lora.load(slot, tmp_path / "peft")
    ids = network.tokenizer.encode(TEXT)
    difference = np.abs(_logits(read, ids) - _logits(slot, ids)).max()
    assert difference < 0.02 * np.abs(_logits(slot, ids)).max()


def test_quantised_matrices_are_near_and_vectors_exact(tmp_path: Path) -> None:
    network = _llama()
    sizes = {}
    for weights, error in (("f16", 1e-3), ("q8_0", 1e-2), ("q4_0", 0.15)):
        path = tmp_path / f"{weights}.gguf"
        export.write_base(network, weights, path, "a base")  # type: ignore[arg-type]
        sizes[weights] = path.stat().st_size
        for tensor in GGUFReader(path).tensors:
            if tensor.name == "blk.1.ffn_down.weight":
                exact = network.state["model.layers.1.mlp.down_proj.weight"].numpy()
                found = quants.dequantize(tensor.data, tensor.tensor_type)
                assert np.abs(found - exact).max() < error * np.abs(exact).max()
            if tensor.name == "token_embd.weight" and weights == "q4_0":
                assert tensor.tensor_type == GGMLQuantizationType.Q8_0
    assert sizes["q4_0"] < sizes["q8_0"] < sizes["f16"]


def test_the_same_export_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    network = _qwen2()
    for name in ("one", "two"):
        export.write_base(network, "q4_0", tmp_path / name, "a base")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_other_architectures_and_widths_are_refused_and_leave_no_file(tmp_path: Path) -> None:
    network = _qwen2()
    odd = network.config.to_dict() | {"model_type": "gpt_bigcode"}
    with pytest.raises(ModelError, match="expected one of llama, qwen2"):
        layout_of(type("Config", (), odd))
    narrow = qwen2.build_model(network.tokenizer, width=48)
    wrong = export.Network(narrow.config, narrow.state_dict(), network.tokenizer)
    with pytest.raises(ModelError, match=r"multiple of 32 for Q8_0, got 48; take weights=f16"):
        export.write_base(wrong, "q8_0", tmp_path / "base.gguf", "a base")
    assert list(tmp_path.iterdir()) == []


def test_another_kind_of_adapter_is_refused(tmp_path: Path) -> None:
    _adapter(_qwen2(), tmp_path)
    path = tmp_path / lora.CONFIG_FILE
    path.write_text(path.read_text().replace('"use_rslora": false', '"use_rslora": true'))
    with pytest.raises(ModelError, match="expected plain LoRA, got LORA, use_rslora"):
        export.read_adapter(tmp_path)


@pytest.mark.parametrize("kind", NETWORKS)
def test_llamacpp_computes_what_transformers_computes(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp", reason="needs llama.cpp: make llamacpp")
    network = _in_f16(NETWORKS[kind]())
    export.write_base(network, "f16", tmp_path / "base.gguf", "a base")
    adapter = _adapter(network, tmp_path / "peft")
    export.write_adapter(adapter, network.config, tmp_path / "adapter.gguf", "an adapter")
    slot = lora.attach(_model(network), QLORA, seed=0)
    lora.load(slot, tmp_path / "peft")
    ids = encode_prompt(network.tokenizer, TEXT, None, 200)
    with Runtime(tmp_path / "base.gguf", threads=1) as runtime:
        assert runtime.tokenize(TEXT, control=True) == network.tokenizer.encode(TEXT)
        alone = runtime.logits(ids)
        runtime.switch(tmp_path / "adapter.gguf")
        adapted = runtime.logits(ids)
        runtime.switch(None)
        np.testing.assert_array_equal(runtime.logits(ids), alone)
    with lora.disabled(slot):
        _agree(alone, _logits(slot, ids))
    _agree(adapted, _logits(slot, ids))


def _agree(theirs: np.ndarray, ours: np.ndarray) -> None:
    assert np.abs(theirs - ours).max() < 0.02 * np.abs(ours).max()
    assert (theirs.argmax(1) == ours.argmax(1)).mean() > 0.95


def test_k_quants_are_llamacpps_own_and_need_wide_matrices(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp", reason="needs llama.cpp: make llamacpp")
    with pytest.raises(ModelError, match="multiple of 256 for K-quants, got 64; take weights=q8_0"):
        export.write_base(_qwen2(), "q4_k_m", tmp_path / "narrow.gguf", "a base")
    tokenizer = qwen2.build_tokenizer()
    model = qwen2.build_model(tokenizer, width=256)
    network = export.Network(model.config, model.state_dict(), tokenizer)
    for weights in ("f16", "q4_0", "q4_k_m"):
        export.write_base(network, weights, tmp_path / f"{weights}.gguf", "a base")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "f16.gguf",
        "q4_0.gguf",
        "q4_k_m.gguf",
    ]
    kinds = {each.tensor_type.name for each in GGUFReader(tmp_path / "q4_k_m.gguf").tensors}
    assert "Q4_K" in kinds
    sizes = [(tmp_path / f"{weights}.gguf").stat().st_size for weights in ("q4_k_m", "f16")]
    assert sizes[0] < 0.5 * sizes[1]
    ids = encode_prompt(tokenizer, TEXT, None, 200)
    ours = _logits(model, ids).ravel()
    alike = {}
    for weights in ("q4_0", "q4_k_m"):
        with Runtime(tmp_path / f"{weights}.gguf", threads=1) as runtime:
            alike[weights] = np.corrcoef(runtime.logits(ids).ravel(), ours)[0, 1]
    assert alike["q4_k_m"] > max(0.7, alike["q4_0"])
