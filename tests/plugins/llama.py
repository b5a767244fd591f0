"""A tiny Llama checkpoint, whose rotary pairs llama.cpp orders otherwise than transformers."""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from models.llamacpp.pretokenizers import pretokenizer
from tests.plugins.qwen2 import build_tokenizer


def build(*, tied: bool = True) -> tuple[LlamaForCausalLM, object]:
    """Draw a small float32 network with three heads to one key head, and its tokenizer."""
    tokenizer = build_tokenizer()
    tokenizer.backend_tokenizer.pre_tokenizer = pretokenizer("smollm")
    config = LlamaConfig(
        vocab_size=len(tokenizer) + 4,
        hidden_size=96,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
        intermediate_size=160,
        max_position_embeddings=512,
        tie_word_embeddings=tied,
        initializer_range=0.2,
        rope_parameters={"rope_type": "default", "rope_theta": 50_000.0},
        bos_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForCausalLM(config).eval(), tokenizer
