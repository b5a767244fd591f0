"""An adapter that teaches the cloud model to write similar pairs, from public records alone.

A large pretrained model needs none of it. A small one copies or drifts; a few minutes on public
users' records teach it the form of the reply and how far to go from the example. What it learns
to write is the miniature world's paraphrase where the records are of that world, and elsewhere the
most similar other record of the same user.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from random import Random

from conf.errors import DataError
from conf.schema import AugmenterConfig, AugmenterTuningConfig, CausalModelConfig
from conf.seeds import derive_seed
from lamp import world
from lamp.prompts import augmentation_reply
from lamp.records import Pair, UserHistory
from lamp.similarity import most_similar
from storage import atomic
from storage.hashing import hash_json
from strategy import public as public_users
from strategy.base_model import model_key
from strategy.device_memory import free_unused
from strategy.progress import Progress
from strategy.prompting import Prompt, configured_prompt
from strategy.tuning import PublicTuning, tune

VERSION = 1  # of this stage's code; part of the cache key


def ensure_augmenter(
    augmenter: AugmenterConfig,
    model: CausalModelConfig,
    tuning: PublicTuning,
    progress: Progress,
) -> Path | None:
    """Take the adapter's folder from the cache, or train the adapter and store it.

    Args:
        augmenter: How it is asked, and by its ``tuning`` what it learns.
        model: The cloud model.
        tuning: What all tuning on the public users depends on.
        progress: Where progress is told.

    Returns:
        The folder; None where the augmenter is not to be tuned.

    Raises:
        DataError: If no public user has records to learn from.
    """
    if augmenter.tuning is None:
        return None
    prompt = configured_prompt(augmenter, tuning.task, tuning.public, tuning.seed)
    key = {
        **model_key(model, tuning.qlora),
        "tuning": asdict(augmenter.tuning),
        "prompt": prompt.identity,
        "task": asdict(tuning.task),
        "public": tuning.public.content_hash,
        "seed": tuning.seed,
        "version": VERSION,
    }
    folder = tuning.cache / "augmenters" / hash_json(key)
    if not atomic.is_whole(folder):
        _train(augmenter.tuning, prompt, model, tuning, folder, progress)
        free_unused(tuning.device)
    return folder


def tuning_pairs(
    users: Sequence[UserHistory], settings: AugmenterTuningConfig, seed: int
) -> list[tuple[Pair, Pair]]:
    """Return public pairs, each with the similar pair that the model is to write.

    Raises:
        DataError: If there is none.
    """
    found = [(user, pair) for user in users for pair in user.pairs]
    rng = Random(derive_seed(seed, "augmenter", "records"))
    rng.shuffle(found)
    knows = world.knows([pair.input for _, pair in found[:1]])
    targets = (
        (pair, replace(pair, input=world.paraphrase(pair.input, rng.getrandbits(32))))
        if knows
        else (pair, most_similar(pair, user.pairs))
        for user, pair in found
    )
    pairs = [(pair, target) for pair, target in targets if target is not None]
    if not pairs:
        raise DataError(
            "public users: expected records to tune the augmenter on, got none with a similar "
            "record beside it; take more data, or set augmenter.tuning=null"
        )
    return pairs[: settings.records]


def _train(
    settings: AugmenterTuningConfig,
    prompt: Prompt,
    model: CausalModelConfig,
    tuning: PublicTuning,
    folder: Path,
    progress: Progress,
) -> None:
    from models import loading, lora

    tokenizer = loading.configured_tokenizer(model)
    users = public_users.read(tuning.public)
    examples = [
        (prompt.ask(shown), target.input if prompt.asks_for_text else augmentation_reply(target))
        for shown, target in tuning_pairs(users, settings, tuning.seed)
    ]
    qlora = replace(
        tuning.qlora,
        base_learning_rate=settings.learning_rate,
        base_epochs=settings.epochs,
        base_batch_size=settings.batch_size,
    )
    tuned, losses = tune(
        model, replace(tuning, qlora=qlora), "augmenter", tokenizer, examples, progress
    )
    with atomic.new_folder(folder, {"losses": list(losses)}) as made:
        lora.save(tuned, made)
