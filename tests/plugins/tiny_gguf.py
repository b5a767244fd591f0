"""A GGUF file of a few kilobytes, laid out as llama.cpp's converter writes one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, TokenType
from gguf.quants import quantize
from transformers.convert_slow_tokenizer import bytes_to_unicode

WIDTH, HEADS, LAYERS, INNER = 64, 4, 2, 96
CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MERGES = ("t h", "th e", "i n", "Ġ t", "Ġt h", "Ġth e")
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write(
    path: Path,
    *,
    architecture: str = "llama",
    split: str | None = "smollm",
    tied: bool = True,
    kind: GGMLQuantizationType = GGMLQuantizationType.Q4_1,
    more: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """Write a small network with random weights and return ``path``.

    Args:
        path: File to write.
        architecture: As llama.cpp names it; names and shapes of the tensors are llama's.
        split: ``tokenizer.ggml.pre``; None leaves it out.
        tied: Without an output layer of its own.
        kind: Type of the matrices.
        more: Further tensors, in float32.
    """
    writer = GGUFWriter(path, architecture)
    tokens = [*CONTROL, *bytes_to_unicode().values(), *("".join(m.split()) for m in MERGES)]
    writer.add_context_length(256)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS // 2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    if split is not None:
        writer.add_tokenizer_pre(split)
    writer.add_token_list(tokens)
    writer.add_token_types(
        [TokenType.CONTROL] * len(CONTROL) + [TokenType.NORMAL] * (len(tokens) - len(CONTROL))
    )
    writer.add_token_merges(list(MERGES))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_chat_template(TEMPLATE)
    for name, array in (_tensors(len(tokens), tied) | dict(more or {})).items():
        is_matrix = array.ndim == 2
        data: Any = quantize(array, kind) if is_matrix else array
        writer.add_tensor(name, data, raw_dtype=kind if is_matrix else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _tensors(vocabulary: int, tied: bool) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)

    def matrix(rows: int, columns: int) -> np.ndarray:
        return draw.normal(0, 0.2, (rows, columns)).astype(np.float32)

    tensors = {
        "token_embd.weight": matrix(vocabulary, WIDTH),
        "output_norm.weight": np.ones(WIDTH, dtype=np.float32),
    }
    if not tied:
        tensors["output.weight"] = matrix(vocabulary, WIDTH)
    for layer in range(LAYERS):
        for name, rows, columns in (
            ("attn_q", WIDTH, WIDTH),
            ("attn_k", WIDTH // 2, WIDTH),
            ("attn_v", WIDTH // 2, WIDTH),
            ("attn_output", WIDTH, WIDTH),
            ("ffn_gate", INNER, WIDTH),
            ("ffn_up", INNER, WIDTH),
            ("ffn_down", WIDTH, INNER),
        ):
            tensors[f"blk.{layer}.{name}.weight"] = matrix(rows, columns)
        for name in ("attn_norm", "ffn_norm"):
            tensors[f"blk.{layer}.{name}.weight"] = np.ones(WIDTH, dtype=np.float32)
    return tensors
