"""A tiny BERT in Hugging Face layout: a classifier where labels are given, else an encoder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    PreTrainedTokenizerFast,
)

WORDS = ("the", "a", "film", "council", "votes", "bridge", "is", "fine", "not")
VOCABULARY = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS)


def write_folder(folder: Path, labels: Mapping[int, str] | None = None) -> Path:
    """Write a small network with random weights and return ``folder``."""
    backend = Tokenizer(
        models.WordLevel({w: i for i, w in enumerate(VOCABULARY)}, unk_token="[UNK]")
    )
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    )
    named = labels or {}
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.3,
        **(
            {"id2label": named, "label2id": {name: i for i, name in named.items()}} if named else {}
        ),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        kind = BertForSequenceClassification if labels else BertModel
        kind(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
