"""What fixture ``qwen2_folder`` writes: a tiny checkpoint laid out like the ones on the model hub.

Qwen2 architecture with random weights, a byte-level BPE tokenizer with Qwen's control tokens, a
chat template that adds a default system turn, and a ``generation_config.json`` with sampling
settings that nobody asked for: what Qwen2.5's own folders hold, at a few hundred kilobytes.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

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
CORPUS = (
    "Which tag does this movie relate to among the following tags? Just answer with the tag name.",
    "What is the score of the following review on a scale of 1 to 5? It was a fine and quiet film.",
    "Generate a headline for the following article. The council votes on a new bridge tonight.",
    "system user assistant helpful description: review: score: headline: title: comedy classic",
    SYSTEM,
)


def build_tokenizer(vocabulary: int = 400) -> Qwen2Tokenizer:
    """Train a Qwen2 tokenizer on a few sentences; ``<tool_call>`` is added but not special."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    bpe = json.loads(backend.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=bpe["vocab"],
        merges=[tuple(pair) for pair in bpe["merges"]],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        chat_template=TEMPLATE,
        model_max_length=4096,
    )
    tokenizer.add_tokens([AddedToken("<tool_call>", special=False, normalized=False)])
    return tokenizer


def build_model(tokenizer: Qwen2Tokenizer, *, width: int = 64, layers: int = 2) -> Qwen2ForCausalLM:
    """Draw a small float32 Qwen2 network whose logits are far from uniform.

    As in Qwen2.5 the vocabulary has more rows than the tokenizer has tokens, and the output layer
    is tied to the embedding.
    """
    config = Qwen2Config(
        vocab_size=len(tokenizer) + 12,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=2 * width,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        initializer_range=0.2,
        bos_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Qwen2ForCausalLM(config).eval()
        for name, weight in model.named_parameters():
            if name.endswith("bias"):  # zero by default; trained checkpoints have real ones
                torch.nn.init.normal_(weight, std=0.2)
    return model


def write_folder(folder: Path, **sizes: int) -> Path:
    """Write tokenizer, network and generation config to ``folder``."""
    tokenizer = build_tokenizer()
    model = build_model(tokenizer, **sizes)
    model.generation_config = GenerationConfig(
        do_sample=True,
        temperature=0.7,
        top_p=0.8,
        top_k=20,
        repetition_penalty=1.1,
        eos_token_id=[tokenizer.eos_token_id, tokenizer.pad_token_id],
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
