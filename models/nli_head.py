"""An NLI classifier from a plain encoder and a file of NLI pairs: trained once, kept by content."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_
from torch.optim.lr_scheduler import LambdaLR
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from conf.schema import NliModelConfig
from conf.seeds import derive_seed
from lamp.world import LABELS
from models.checkpoint import model_identity
from models.loading import attempt, load_tokenizer, no_progress_bars, origin
from models.miniature.nli import HELD_OUT_EVERY, HELD_OUT_PAIRS
from models.names import local_or_hub
from models.nli_pairs import NliPair, read_nli
from models.progress import ProgressCallback
from storage import atomic
from storage.hashing import hash_bytes, hash_json

VERSION = 1  # a change that alters the weights gets a new version
WARMUP = 0.1
CLIP = 1.0
POOL = 32  # batches whose pairs are put in order of length, so that little is padding


def ensure(config: NliModelConfig, file: Path, cache: Path, progress: ProgressCallback) -> Path:
    """Train a classification head on an encoder, and the encoder with it, or find it in the cache.

    Args:
        config: ``path`` names the encoder; ``head`` says how to train.
        file: JSON lines with premise, hypothesis and label; every tenth is held out.
        cache: The folder ``judges`` below it holds one folder per judge.
        progress: Called with phase, steps done and steps in all.

    Returns:
        The folder; its marker has ``accuracy`` on the held-out ``pairs``.

    Raises:
        DataError: If the file cannot be read.
        ModelError: If there is no such encoder.
    """
    pairs = read_nli(file)
    key = {
        "version": VERSION,
        "encoder": model_identity(config.path, config.revision),
        "data": hash_bytes(file.read_bytes()),
        "max_length": config.max_length,
        "head": asdict(config.head),
    }
    folder = cache / "judges" / hash_json(key)
    if not atomic.is_whole(folder):
        marker: dict[str, Any] = {}
        with atomic.new_folder(folder, marker) as made:
            marker |= _train(made, config, pairs, progress)
    return folder


def _train(
    folder: Path, config: NliModelConfig, pairs: Sequence[NliPair], progress: ProgressCallback
) -> dict[str, Any]:
    """Train and save; return what the marker tells."""
    shuffled = random.Random(derive_seed(config.head.seed, "held out")).sample(pairs, len(pairs))
    tested = shuffled[::HELD_OUT_EVERY][:HELD_OUT_PAIRS]
    learned = [pair for place, pair in enumerate(shuffled) if place % HELD_OUT_EVERY] or shuffled
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.head.seed)  # of the head's weights, and of dropout
        model, tokenizer = _new(config)
        _fit(model, tokenizer, config, learned, progress)
    with no_progress_bars():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return {"accuracy": _accuracy(model, tokenizer, config, tested), "pairs": len(tested)}


def _new(config: NliModelConfig) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    source = local_or_hub(config.path)
    model: PreTrainedModel = attempt(
        source,
        "an encoder",
        lambda: AutoModelForSequenceClassification.from_pretrained(
            source,
            dtype=torch.float32,
            id2label=dict(enumerate(map(str, LABELS))),
            label2id={str(label): place for place, label in enumerate(LABELS)},
            **origin(source, config.revision),
        ),
    )
    return model, load_tokenizer(source, config.revision)


def _fit(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    config: NliModelConfig,
    pairs: Sequence[NliPair],
    progress: ProgressCallback,
) -> None:
    head = config.head
    steps = head.epochs * -(-len(pairs) // head.batch_size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=head.learning_rate, weight_decay=0.01)
    schedule = LambdaLR(optimizer, lambda step: _factor(step, steps))
    model.train()
    for done, batch in enumerate(_batches(pairs, config), start=1):
        loss = cross_entropy(model(**_encode(tokenizer, batch, config)).logits, _labels(batch))
        loss.backward()
        clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        progress("NLI head", done, steps)
    model.eval()


def _factor(step: int, steps: int) -> float:
    """Linear warm-up, then linear decay."""
    return min((step + 1) / (WARMUP * steps + 1), 1 - step / steps)


def _batches(pairs: Sequence[NliPair], config: NliModelConfig) -> Iterator[Sequence[NliPair]]:
    rng = random.Random(derive_seed(config.head.seed, "batches"))
    size = config.head.batch_size
    for _ in range(config.head.epochs):
        order = rng.sample(pairs, len(pairs))
        batches = []
        for start in range(0, len(order), POOL * size):
            pool = sorted(order[start : start + POOL * size], key=lambda p: len(p[0]) + len(p[1]))
            batches += [pool[place : place + size] for place in range(0, len(pool), size)]
        rng.shuffle(batches)
        yield from batches


def _encode(
    tokenizer: PreTrainedTokenizerBase, pairs: Sequence[NliPair], config: NliModelConfig
) -> Any:
    return tokenizer(
        [premise for premise, _, _ in pairs],
        [hypothesis for _, hypothesis, _ in pairs],
        truncation="longest_first",
        max_length=config.max_length,
        padding=True,
        split_special_tokens=True,
        return_tensors="pt",
    )


def _labels(pairs: Sequence[NliPair]) -> torch.Tensor:
    return torch.tensor([LABELS.index(label) for _, _, label in pairs])


@torch.inference_mode()
def _accuracy(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    config: NliModelConfig,
    pairs: Sequence[NliPair],
) -> float:
    """Share of pairs with the right label."""
    right = 0
    for start in range(0, len(pairs), config.batch_size):
        batch = pairs[start : start + config.batch_size]
        found = model(**_encode(tokenizer, batch, config)).logits.argmax(-1)
        right += int((found == _labels(batch)).sum())
    return right / len(pairs)
