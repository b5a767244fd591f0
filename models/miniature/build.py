"""From a data set to three model folders: train, measure on held-out users, store by content.

The cache key holds everything that shapes the result: the corpus users' records, the task, the
build settings, the version of the world and ``VERSION``. Who is a target user is in it only through
who is no corpus user, so runs with other target users among the held-out ones share one build.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path
from threading import Event
from typing import Any

from conf.errors import ConfigError
from conf.schema import BuildConfig, Config
from conf.seeds import derive_seed
from lamp import world
from lamp.dataset import LampData, corpus_users
from models.miniature.causal import new_causal, train_causal
from models.miniature.corpus import Corpus, cloud_draw, device_draw, make_corpus
from models.miniature.nli import (
    NliPair,
    Source,
    accuracy,
    new_nli,
    nli_source,
    nli_tokenizer,
    train_nli,
)
from models.miniature.optimise import OnStep, one_thread
from models.miniature.report import cloud_figures
from models.miniature.tokenizer import train_tokenizer
from storage.atomic import is_whole, new_folder, write_json
from storage.hashing import hash_bytes, hash_json

VERSION = "5"  # a change that alters the weights gets a new version
NLI_VOCABULARY_PAIRS = 2000
LAST_LOSSES = 20

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
    corpus = make_corpus(data.task, corpus_users(data, settings.holdout), settings)
    folder = cache / "models" / _key(corpus, settings)
    if not is_whole(folder):
        _train_into(folder, corpus, settings, progress)
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


def _train_into(folder: Path, corpus: Corpus, settings: BuildConfig, progress: Progress) -> None:
    texts = [pair.input for pair in corpus.pairs]
    held_out = [pair.input for user in corpus.held_out for pair in user.pairs]
    source, tested = nli_source(settings, texts, held_out)  # refuses bad input before training
    with new_folder(folder) as target:
        write_json(
            target / "report.json", _train(target, corpus, settings, source, tested, progress)
        )


def _train(
    target: Path,
    corpus: Corpus,
    settings: BuildConfig,
    source: Source,
    tested: tuple[NliPair, ...],
    progress: Progress,
) -> dict[str, Any]:
    """Train all three on two threads: the cloud on one, device and NLI on the other.

    Two networks at a time use two cores better than one network on two threads, and take no harm
    when a core is busy. Weights are drawn before the threads start.
    """
    start = time.perf_counter()
    tokenizer = train_tokenizer(_vocabulary_texts(corpus, settings, source), settings.vocabulary)
    # a tokenizer keeps settings of its last call, so each thread has its own
    pair_tokenizer, device_tokenizer = nli_tokenizer(tokenizer), deepcopy(tokenizer)
    cloud, device, nli = (
        new_causal(settings.cloud, tokenizer, derive_seed(settings.seed, "cloud")),
        new_causal(settings.device, tokenizer, derive_seed(settings.seed, "device")),
        new_nli(settings.nli, pair_tokenizer, derive_seed(settings.seed, "nli")),
    )

    given_up = Event()

    def train_cloud() -> dict[str, Any]:
        with one_thread(), stopwatch() as seconds:
            on_step = _reporter(progress, "cloud model", settings.cloud_steps, given_up)
            seed = derive_seed(settings.seed, "cloud", "batches")
            draw = cloud_draw(corpus, tokenizer)
            losses = train_causal(
                cloud, tokenizer, draw, settings.cloud_steps, settings, seed, on_step
            )
        return _summary(cloud, losses, seconds())

    def train_device() -> dict[str, Any]:
        with one_thread(), stopwatch() as seconds:
            on_step = _reporter(progress, "device model", settings.device_steps, given_up)
            seed = derive_seed(settings.seed, "device", "batches")
            draw = device_draw(corpus, device_tokenizer, settings.self_synthesis)
            losses = train_causal(
                device, device_tokenizer, draw, settings.device_steps, settings, seed, on_step
            )
        return _summary(device, losses, seconds())

    def train_classifier() -> dict[str, Any]:
        with one_thread(), stopwatch() as seconds:
            on_step = _reporter(progress, "NLI model", settings.nli_steps, given_up)
            losses = train_nli(nli, pair_tokenizer, source, settings, on_step)
        return _summary(nli, losses, seconds())

    with ThreadPoolExecutor(max_workers=1) as beside:
        others = [beside.submit(train_device), beside.submit(train_classifier)]
        try:
            report: dict[str, Any] = {"cloud": train_cloud()}
            report["device"], report["nli"] = (other.result() for other in others)
        except BaseException:  # an interrupt too: the other thread would go on for minutes
            given_up.set()
            raise
    _save(target / "cloud", cloud, tokenizer)
    _save(target / "device", device, tokenizer)
    _save(target / "nli", nli, pair_tokenizer)
    report["cloud"] |= cloud_figures(cloud, tokenizer, corpus)
    report["nli"] |= accuracy(nli, pair_tokenizer, tested, settings)
    report |= {"target": corpus.target, "users": len(corpus.users), "vocabulary": len(tokenizer)}
    return report | {"seconds": round(time.perf_counter() - start, 1)}


@contextmanager
def stopwatch() -> Iterator[Callable[[], float]]:
    """Yield a function that tells the seconds since the block began."""
    start = time.perf_counter()
    yield lambda: round(time.perf_counter() - start, 1)


def _vocabulary_texts(corpus: Corpus, settings: BuildConfig, source: Source) -> list[str]:
    pairs = source(derive_seed(settings.seed, "vocabulary"), NLI_VOCABULARY_PAIRS, 1.0)
    return [*corpus.texts(), *(f"{premise}\n{hypothesis}" for premise, hypothesis, _ in pairs)]


def _reporter(progress: Progress, phase: str, steps: int, given_up: Event) -> OnStep:
    def on_step(step: int) -> None:
        if given_up.is_set():
            raise CancelledError(f"{phase}: given up at step {step} of {steps}")
        progress(phase, step, steps)

    return on_step


def _save(folder: Path, model: Any, tokenizer: Any) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _summary(model: Any, losses: tuple[float, ...], seconds: float) -> dict[str, Any]:
    last = losses[-LAST_LOSSES:]
    return {
        "parameters": model.num_parameters(),
        "loss": round(sum(last) / len(last), 4),
        "seconds": seconds,
    }
