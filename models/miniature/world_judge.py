"""The miniature world's own NLI network for models that know nothing of that world.

It is the network of ``model=miniature``, trained alone: the same sizes, steps and pairs.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from conf.schema import BuildConfig
from conf.seeds import derive_seed
from lamp import world
from lamp.dataset import LampData, corpus_users
from models.miniature.nli import accuracy, new_nli, nli_source, nli_tokenizer, train_nli
from models.miniature.tokenizer import train_tokenizer
from models.progress import ProgressCallback
from storage import atomic
from storage.hashing import hash_json

VERSION = 1  # a change that alters the weights gets a new version
VOCABULARY_PAIRS = 2000


def ensure(
    data: LampData, max_words: int, settings: BuildConfig, cache: Path, progress: ProgressCallback
) -> Path:
    """Train the world's judge, or find it in the cache.

    Args:
        data: Data of the miniature world; only its corpus users' texts are read.
        max_words: Where fields were cut.
        settings: Those of ``model=miniature``.
        cache: The folder ``judges`` below it holds one folder per judge.
        progress: Called with phase, steps done and steps in all.

    Returns:
        The folder; its marker has ``accuracy`` on pairs about held-out users' texts.

    Raises:
        ConfigError: If the data are not of the world.
    """
    users = corpus_users(data, settings.holdout, max_words)
    held_out = [pair.input for user in users[::10] for pair in user.pairs]
    texts = [pair.input for place, user in enumerate(users) if place % 10 for pair in user.pairs]
    folder = cache / "judges" / hash_json(_key(texts, held_out, settings))
    if not atomic.is_whole(folder):
        marker: dict[str, Any] = {}
        with atomic.new_folder(folder, marker) as made:
            marker |= _train(made, texts, held_out, settings, progress)
    return folder


def _key(texts: list[str], held_out: list[str], settings: BuildConfig) -> dict[str, Any]:
    shaping = ("nli", "vocabulary", "tokens_per_batch", "nli_steps", "nli_learning_rate", "seed")
    given = asdict(settings)
    return {
        "version": VERSION,
        "world": world.VERSION,
        "settings": {key: given[key] for key in shaping},
        "texts": [texts, held_out],
    }


def _train(
    folder: Path,
    texts: list[str],
    held_out: list[str],
    settings: BuildConfig,
    progress: ProgressCallback,
) -> dict[str, Any]:
    """Train and save; return what the marker tells."""
    source, tested = nli_source(settings, texts, held_out)
    seen = source(derive_seed(settings.seed, "vocabulary"), VOCABULARY_PAIRS, 1.0)
    vocabulary = [*texts, *(f"{premise}\n{hypothesis}" for premise, hypothesis, _ in seen)]
    tokenizer = nli_tokenizer(train_tokenizer(vocabulary, settings.vocabulary))
    model = new_nli(settings.nli, tokenizer, derive_seed(settings.seed, "nli"))
    steps = settings.nli_steps
    train_nli(model, tokenizer, source, settings, lambda done: progress("NLI model", done, steps))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {**accuracy(model, tokenizer, tested, settings), "pairs": len(tested)}
