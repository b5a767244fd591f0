"""From a data set to three model folders: found by content in the cache, or trained once.

The cache key holds everything that shapes the result: the corpus users' records, the task, the
build settings, the version of the world and ``VERSION``. Who is a target user is in it only through
who is no corpus user, so runs with other target users among the held-out ones share one build.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from conf.errors import ConfigError
from conf.schema import BuildConfig, ModelConfig
from lamp import world
from lamp.dataset import LampData, corpus_users
from models.miniature.corpus import Corpus, make_corpus
from models.progress import ProgressCallback
from storage.atomic import is_whole
from storage.hashing import hash_bytes, hash_json

VERSION = "5"  # a change that alters the weights gets a new version


def build(
    models: ModelConfig, data: LampData, max_words: int, cache: Path, progress: ProgressCallback
) -> ModelConfig:
    """Train the three miniatures, or find them in the cache.

    Args:
        models: The models of a run; ``build`` says how to train.
        data: Loaded data. Only its corpus users' records are read.
        max_words: Where fields are cut.
        cache: The folder ``models`` below it holds one folder per build.
        progress: Called with phase, steps done and steps in all.

    Returns:
        ``models`` with the paths of the three built folders.

    Raises:
        ConfigError: If there is nothing to build, too little data, or no source of NLI pairs.
        DataError: If the NLI file cannot be read.
    """
    settings = models.build
    if settings is None:
        raise ConfigError(
            "model.build: expected build settings, got none; use model=miniature, or give "
            "model.cloud.path, model.device.path and model.nli.path"
        )
    corpus, folder = _planned(settings, data, max_words, cache)
    if not is_whole(folder):
        from models.miniature.training import train_into  # heavy, and most runs find the folder

        train_into(folder, corpus, settings, progress)
    return _with_paths(models, folder)


def is_built(settings: BuildConfig, data: LampData, max_words: int, cache: Path) -> bool:
    """Whether :func:`build` would find its networks in the cache."""
    return is_whole(_planned(settings, data, max_words, cache)[1])


def _planned(
    settings: BuildConfig, data: LampData, max_words: int, cache: Path
) -> tuple[Corpus, Path]:
    """What is trained on, and where the networks lie."""
    users = corpus_users(data, settings.holdout, max_words)
    corpus = make_corpus(data.task, users, settings)
    return corpus, cache / "models" / _key(corpus, settings)


def _key(corpus: Corpus, settings: BuildConfig) -> str:
    nli_file = Path(settings.nli_data).expanduser() if settings.nli_data else None
    # what is off shapes nothing, so that builds from before the key stay valid
    off = () if settings.self_synthesis else ("self_synthesis",)
    given = {key: value for key, value in asdict(settings).items() if key not in off}
    shaping = {
        "version": VERSION,
        "world": world.VERSION,
        "task": asdict(corpus.task),
        "target": corpus.target,
        "build": given | {"nli_data": None},
        "nli": hash_bytes(nli_file.read_bytes()) if nli_file and nli_file.is_file() else None,
        "users": [[asdict(user) for user in users] for users in (corpus.users, corpus.held_out)],
    }
    return hash_json(shaping)


def _with_paths(models: ModelConfig, folder: Path) -> ModelConfig:
    return replace(
        models,
        cloud=replace(models.cloud, path=str(folder / "cloud"), revision=None),
        device=replace(models.device, path=str(folder / "device"), revision=None),
        nli=replace(models.nli, path=str(folder / "nli"), revision=None),
    )
