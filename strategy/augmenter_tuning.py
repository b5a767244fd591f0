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
from conf.schema import AugmenterTuningConfig, Config
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
from strategy.prompting import configured_prompt
from strategy.public import PublicUsers
from strategy.tuning import tune

VERSION = 1  # of this stage's code; part of the cache key


def ensure_augmenter(
    config: Config, tuning: AugmenterTuningConfig, public: PublicUsers, progress: Progress
) -> Path:
    """Take the adapter's folder from the cache, or train the adapter and store it.

    Raises:
        DataError: If no public user has records to learn from.
    """
    key = {
        **model_key(config, config.model.cloud),
        "tuning": asdict(tuning),
        "prompt": configured_prompt(config, public).identity,
        "task": asdict(config.task),
        "public": public.content_hash,
        "seed": config.seed,
        "version": VERSION,
    }
    folder = Path(config.paths.cache) / "augmenters" / hash_json(key)
    if not atomic.is_whole(folder):
        _train(config, tuning, public, folder, progress)
        free_unused(config.resources.cloud_device)
    return folder


def tuning_pairs(
    users: Sequence[UserHistory], tuning: AugmenterTuningConfig, seed: int
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
    return pairs[: tuning.records]


def _train(
    config: Config,
    tuning: AugmenterTuningConfig,
    public: PublicUsers,
    folder: Path,
    progress: Progress,
) -> None:
    from models import loading, lora

    model = config.model.cloud
    tokenizer = loading.configured_tokenizer(model)
    prompt = configured_prompt(config, public)
    examples = [
        (prompt.ask(shown), target.input if prompt.asks_for_text else augmentation_reply(target))
        for shown, target in tuning_pairs(public_users.read(public), tuning, config.seed)
    ]
    settings = replace(
        config.qlora,
        base_learning_rate=tuning.learning_rate,
        base_epochs=tuning.epochs,
        base_batch_size=tuning.batch_size,
    )
    tuned, losses = tune(
        replace(config, qlora=settings), model, "augmenter", tokenizer, examples, progress
    )
    with atomic.new_folder(folder, {"losses": list(losses)}) as made:
        lora.save(tuned, made)
