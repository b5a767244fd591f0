"""Fixture ``qwen2_folder``: a tiny checkpoint laid out like the ones on the model hub.

Qwen2 architecture with random weights, a byte-level BPE tokenizer with Qwen's control tokens, a chat
template that adds a default system turn, and a ``generation_config.json`` with sampling settings that
nobody asked for: what Qwen2.5's own folders hold, at a few hundred kilobytes.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AddedToken,
    GenerationConfig,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Tokenizer,
)

SYSTEM = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
TEMPLATE = (
    "{% if messages[0].role != 'system' %}"
    "<|im_start|>system\n" + SYSTEM + "<|im_end|>\n"
    "{% endif %}"
    "{% for message in messages %}"
    "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXT = (
    "Which tag does this movie relate to among the following tags? Just answer with the tag name.",
    "What is the score of the following review on a scale of 1 to 5? It was a fine and quiet film.",
    "Generate a headline for the following article. The council votes on a new bridge tonight.",
    "system user assistant helpful description: review: score: headline: title: comedy classic",
)
CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def build_tokenizer(vocabulary: int = 400) -> Qwen2Tokenizer:
    """Train a Qwen2 tokenizer on a few sentences; ``<tool_call>`` is added but not special."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(TEXT, trainer)
    bpe = backend.model
    folder_free = {token: backend.token_to_id(token) for token in backend.get_vocab()}
    tokenizer = Qwen2Tokenizer(
        vocab=folder_free,
        merges=_merges(backend),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        chat_template=TEMPLATE,
        model_max_length=4096,
    )
    del bpe
    tokenizer.add_tokens([AddedToken("<tool_call>", special=False, normalized=False)])
    return tokenizer


def _merges(backend: Tokenizer) -> list[tuple[str, str]]:
    import json

    return [tuple(pair) for pair in json.loads(backend.to_str())["model"]["merges"]]
