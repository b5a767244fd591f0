"""From a data set to three model folders: found by content in the cache, or trained once.

The cache key holds everything that shapes the result: the corpus users' records, the task, the
build settings, the version of the world and ``VERSION``. Who is a target user is in it only through
who is no corpus user, so runs with other target users among the held-out ones share one build.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from conf.errors import ConfigError
from conf.schema import BuildConfig, Config
from lamp import world
from lamp.dataset import LampData, corpus_users
from models.miniature.corpus import Corpus, make_corpus
from storage.atomic import is_whole
from storage.hashing import hash_bytes, hash_json

VERSION = "5"  # a change that alters the weights gets a new version

Progress = Callable[[str, int, int], None]


def build(config: Config, data: LampData, cache: Path, progress: Progress) -> Config:
    """Train the three miniatures, or find them in the cache.

    Args:
        config: Run; ``model.build`` says how to train.
        data: Loaded data. Only its corpus users' records are read.
        cache: The folder ``models`` below it holds one folder per build.
        progress: Called with phase, steps done and steps in all.

    Returns:
        ``config`` with the paths of the three built folders.

    Raises:
        ConfigError: If there is nothing to build, too little data, or no source of NLI pairs.
        DataError: If the NLI file cannot be read.
    """
    settings = config.model.build
    if settings is None:
        raise ConfigError(
            "model.build: expected build settings, got none; use model=miniature, or give "
            "model.cloud.path, model.device.path and model.nli.path"
        )
    corpus = make_corpus(
        data.task, corpus_users(data, settings.holdout, config.task.max_field_words), settings
    )
    folder = cache / "models" / _key(corpus, settings)
    if not is_whole(folder):
        from models.miniature.training import train_into  # heavy, and most runs find the folder

        train_into(folder, corpus, settings, progress)
    return _with_paths(config, folder)


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


def _with_paths(config: Config, folder: Path) -> Config:
    model = config.model
    return replace(
        config,
        model=replace(
            model,
            cloud=replace(model.cloud, path=str(folder / "cloud"), revision=None),
            device=replace(model.device, path=str(folder / "device"), revision=None),
            nli=replace(model.nli, path=str(folder / "nli"), revision=None),
        ),
    )
