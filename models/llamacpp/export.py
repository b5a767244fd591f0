"""A base model and its adapters as GGUF files, which llama.cpp loads side by side.

The base is written with the weights that the adapters were trained on: M_base in NF4, dequantised.
F16 keeps them as they are (bfloat16 fits but for numbers below 6e-8); Q8_0 and Q4_0 quantise once
more. Vectors stay in float32. Equal input gives equal bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFWriter, LlamaFileType, quants
from gguf.constants import GGML_QUANT_VERSION, GGUFType, Keys
from safetensors.torch import load_file

from conf.errors import ModelError
from conf.schema import GgufWeights, QLoraConfig
from models import loading
from models.llamacpp import vocabulary
from models.llamacpp.layout import Array, add_sizes, layout_of
from models.lora import CONFIG_FILE, WEIGHTS_FILE
from storage.atomic import new_file

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_F32, _F16 = GGMLQuantizationType.F32, GGMLQuantizationType.F16
_Q8_0, _Q4_0 = GGMLQuantizationType.Q8_0, GGMLQuantizationType.Q4_0
K_BLOCK = 256  # numbers that share a block of K-quants
_TYPES = {"f16": _F16, "q8_0": _Q8_0, "q4_0": _Q4_0}
_FILE_TYPES = {
    "f16": LlamaFileType.MOSTLY_F16,
    "q8_0": LlamaFileType.MOSTLY_Q8_0,
    "q4_0": LlamaFileType.MOSTLY_Q4_0,
}
_VARIANTS = ("use_rslora", "use_dora", "rank_pattern", "alpha_pattern")  # other updates
_EMBEDDINGS = ("token_embd.weight", "output.weight")


@dataclass(frozen=True, slots=True)
class Network:
    """A base model in memory.

    Attributes:
        config: Its Hugging Face configuration.
        state: Its weights by Hugging Face's names; a tied output layer may be among them.
        tokenizer: Its tokenizer.
    """

    config: Any
    state: Mapping[str, torch.Tensor]
    tokenizer: PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter read from a PEFT folder.

    Attributes:
        alpha: Scaling numerator; the update is alpha / rank * B A.
        rank: Its rank.
        modules: (A, B) of each adapted module by its name in the base, e.g.
            ``model.layers.0.self_attn.q_proj``; A is (rank, d_in), B is (d_out, rank).
    """

    alpha: float
    rank: int
    modules: Mapping[str, tuple[torch.Tensor, torch.Tensor]]


def read_network(folder: Path, qlora: QLoraConfig) -> Network:
    """Read the base in ``folder``, quantised or plain, as the device computes with it.

    Raises:
        ModelError: If there is no such model.
    """
    model = loading.load_device_base(folder, replace(qlora, dequantise_once=True))
    return Network(model.config, model.state_dict(), loading.load_tokenizer(folder))


def read_adapter(folder: Path) -> Adapter:
    """Read a PEFT folder.

    Raises:
        ModelError: If it holds something else than plain LoRA.
    """
    config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    odd = [key for key in _VARIANTS if config.get(key)]
    if config["peft_type"] != "LORA" or odd:
        got = ", ".join([config["peft_type"], *odd])
        raise ModelError(
            f"adapter {folder.name}: expected plain LoRA, got {got}; llama.cpp computes no other"
        )
    tensors = load_file(folder / WEIGHTS_FILE)
    modules = {}
    for name, first in tensors.items():
        module, found, _ = name.removeprefix("base_model.model.").partition(".lora_A.weight")
        if found:
            modules[module] = (first, tensors[name.replace(".lora_A.", ".lora_B.")])
    return Adapter(float(config["lora_alpha"]), int(config["r"]), modules)


def merged(network: Network, adapter: Adapter) -> Network:
    """Return the network with the adapter's update added to its weights, in float32."""
    state = dict(network.state)
    for module, (first, second) in adapter.modules.items():
        update = (adapter.alpha / adapter.rank) * (second.double() @ first.double())
        name = f"{module}.weight"
        state[name] = (state[name].double() + update).float()
    return Network(network.config, state, network.tokenizer)


def write_base(network: Network, weights: GgufWeights, path: Path, name: str) -> None:
    """Write a base model, or one with an adapter merged into it.

    The embedding, which also is the output layer where they are tied, keeps 8 bits in a Q4_0 file,
    as llama.cpp's own tool does where widths are no multiple of 256.

    Args:
        network: The model.
        weights: Type of its matrices.
        path: File to write.
        name: What llama.cpp shows.

    Raises:
        ModelError: If architecture or tokenizer are not exported, a width is no multiple of 32, or
            of 256 for K-quants, or these are asked for and llama.cpp's binding is missing.
    """
    if weights == "q4_k_m":
        _write_k_quants(network, path, name)
        return
    layout = layout_of(network.config)
    words = vocabulary.vocabulary(network.tokenizer, network.config.vocab_size)
    with new_file(path) as temporary:
        writer = GGUFWriter(temporary, layout.architecture)
        writer.add_type(GGUFType.MODEL)
        writer.add_name(name)
        writer.add_file_type(_FILE_TYPES[weights])
        writer.add_quantization_version(GGML_QUANT_VERSION)
        add_sizes(writer, network.config)
        vocabulary.add(writer, words)
        tied = network.config.tie_word_embeddings
        for theirs, tensor in network.state.items():
            if tied and theirs == "lm_head.weight":
                continue
            ours = layout.name(theirs)
            array = layout.ordered(theirs, tensor.detach().cpu().float().numpy())
            _add(writer, ours, array, _type_of(ours, array, weights))
        _finish(writer)


def _write_k_quants(network: Network, path: Path, name: str) -> None:
    """Write the base by llama.cpp's own quantiser, which chooses the type of each matrix.

    Raises:
        ModelError: As :func:`write_base`.
    """
    from models.llamacpp.runtime import binding

    layout, library = layout_of(network.config), binding()
    for theirs, tensor in network.state.items():
        if tensor.ndim == 2 and tensor.shape[-1] % K_BLOCK:
            raise ModelError(
                f"weight {layout.name(theirs)}: expected a width that is a multiple of {K_BLOCK} "
                f"for K-quants, got {tensor.shape[-1]}; take weights=q8_0 or q4_0"
            )
    with TemporaryDirectory(dir=path.parent) as folder, new_file(path) as temporary:
        plain = Path(folder) / "f16.gguf"
        write_base(network, "f16", plain, name)
        settings = library.llama_model_quantize_default_params()
        settings.ftype = library.LLAMA_FTYPE_MOSTLY_Q4_K_M
        ends = (str(plain).encode(), str(temporary).encode())
        if library.llama_model_quantize(*ends, settings):
            raise ModelError(f"{path.name}: llama.cpp could not quantise it; take weights=q4_0")


def write_adapter(adapter: Adapter, config: Any, path: Path, name: str) -> None:
    """Write an adapter as llama.cpp loads it beside its base, in F16.

    Args:
        adapter: The adapter.
        config: Hugging Face configuration of its base.
        path: File to write.
        name: What llama.cpp shows.

    Raises:
        ModelError: If the base's architecture is not exported.
    """
    layout = layout_of(config)
    with new_file(path) as temporary:
        writer = GGUFWriter(temporary, layout.architecture)
        writer.add_type(GGUFType.ADAPTER)
        writer.add_name(name)
        writer.add_file_type(LlamaFileType.MOSTLY_F16)
        writer.add_string(Keys.Adapter.TYPE, "lora")
        writer.add_float32(Keys.Adapter.LORA_ALPHA, adapter.alpha)
        for module, (first, second) in sorted(adapter.modules.items()):
            theirs = f"{module}.weight"
            ours = layout.name(theirs)
            _add(writer, f"{ours}.lora_a", first.float().numpy(), _F16)
            _add(writer, f"{ours}.lora_b", layout.ordered(theirs, second.float().numpy()), _F16)
        _finish(writer)


def _type_of(name: str, array: Array, weights: GgufWeights) -> GGMLQuantizationType:
    if array.ndim == 1:
        return _F32
    if weights == "q4_0" and name in _EMBEDDINGS:
        return _Q8_0
    return _TYPES[weights]


def _add(writer: GGUFWriter, name: str, array: Array, kind: GGMLQuantizationType) -> None:
    if kind in (_F32, _F16):
        writer.add_tensor(name, array.astype(np.float32 if kind == _F32 else np.float16))
        return
    block, _ = GGML_QUANT_SIZES[kind]
    if array.shape[-1] % block:
        raise ModelError(
            f"weight {name}: expected a width that is a multiple of {block} for {kind.name}, got "
            f"{array.shape[-1]}; take weights=f16"
        )
    writer.add_tensor(name, quants.quantize(array, kind), raw_dtype=kind)


def _finish(writer: GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
