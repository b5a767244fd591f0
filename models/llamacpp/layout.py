"""Names, shapes and order of weights in a GGUF, against those of a Hugging Face checkpoint.

Llama's rotary embedding pairs neighbouring rows in llama.cpp and rows half a head apart in
transformers, so the rows of ``q_proj`` and ``k_proj`` change places (llama.cpp,
``convert_hf_to_gguf.py``, ``LlamaModel.permute``). Qwen2's pairs are the same in both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, GGUFWriter, TensorNameMap, get_tensor_name_map

from conf.errors import ModelError

Array = npt.NDArray[Any]
ARCHITECTURES = {"llama": MODEL_ARCH.LLAMA, "qwen2": MODEL_ARCH.QWEN2}


@dataclass(frozen=True, slots=True)
class Layout:
    """How one network's weights are named and ordered in a GGUF.

    Attributes:
        architecture: llama.cpp's name of it.
        names: From Hugging Face's names to llama.cpp's.
        heads: For modules whose rows change places the number of heads, by the end of their name.
    """

    architecture: str
    names: TensorNameMap
    heads: Mapping[str, int]

    def name(self, theirs: str) -> str:
        """Return llama.cpp's name of a parameter, e.g. ``blk.0.attn_q.weight``.

        Raises:
            ModelError: If llama.cpp has no such parameter.
        """
        found = self.names.get_name(theirs, try_suffixes=(".weight", ".bias"))
        if found is None:
            raise ModelError(f"weight {theirs}: llama.cpp's {self.architecture} has none like it")
        return found

    def ordered(self, theirs: str, weight: Array) -> Array:
        """Return the (rows, ...) weight, bias or LoRA B of module ``theirs`` in GGUF's order."""
        module = theirs.rpartition(".")[0].rpartition(".")[2]
        heads = self.heads.get(module)
        if heads is None:
            return weight
        rows = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
        return np.ascontiguousarray(rows.swapaxes(1, 2).reshape(weight.shape))


def layout_of(config: Any) -> Layout:
    """Return the layout of a network by its Hugging Face configuration.

    Raises:
        ModelError: If the architecture is none that is exported, or has parts that are not.
    """
    kind = config.model_type
    if kind not in ARCHITECTURES:
        raise ModelError(
            f"architecture {kind}: expected one of {', '.join(ARCHITECTURES)}; "
            "others are not exported to GGUF"
        )
    rope = config.rope_parameters
    if rope.get("rope_type", "default") != "default" or getattr(
        config, "use_sliding_window", False
    ):
        raise ModelError(
            f"architecture {kind}: expected plain rotary positions without a sliding window, got "
            f"rope_type={rope.get('rope_type')}; this is not exported to GGUF"
        )
    arch = ARCHITECTURES[kind]
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    return Layout(
        architecture=MODEL_ARCH_NAMES[arch],
        names=get_tensor_name_map(arch, config.num_hidden_layers),
        heads=heads if kind == "llama" else {},
    )


def add_sizes(writer: GGUFWriter, config: Any) -> None:
    """Write what llama.cpp must know of the network."""
    width, heads = config.hidden_size, config.num_attention_heads
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(width)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    head = getattr(config, "head_dim", None) or width // heads
    writer.add_rope_dimension_count(head)
    if head * heads != width:
        writer.add_key_length(head)
        writer.add_value_length(head)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
