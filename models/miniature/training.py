"""Training the three miniatures: two threads, held-out figures, one folder each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

from conf.schema import BuildConfig
from conf.seeds import derive_seed
from models.miniature.causal import new_causal, train_causal
from models.miniature.corpus import Corpus, Draw, cloud_draw, device_draw
from models.miniature.nli import (
    Source,
    accuracy,
    new_nli,
    nli_source,
    nli_tokenizer,
    train_nli,
)
from models.miniature.optimise import StepDone, one_thread
from models.miniature.report import cloud_figures
from models.miniature.tokenizer import train_tokenizer
from models.nli_pairs import NliPair
from models.progress import ProgressCallback
from storage.atomic import new_folder, write_json

NLI_VOCABULARY_PAIRS = 2000
LAST_LOSSES = 20


@dataclass(frozen=True, slots=True)
class Job:
    """The training of one network.

    Attributes:
        phase: What the progress calls it.
        model: The network.
        steps: Optimizer steps.
        train: Trains it; returns one loss per step.
    """

    phase: str
    model: Any
    steps: int
    train: Callable[[StepDone], tuple[float, ...]]


def train_into(
    folder: Path, corpus: Corpus, settings: BuildConfig, progress: ProgressCallback
) -> None:
    """Train the three networks, measure them on held-out users and store them with a report.

    Args:
        folder: Appears whole or not at all: cloud, device, nli and report.json.
        corpus: What they learn from.
        settings: Sizes, steps and rates.
        progress: Called with phase, steps done and steps in all.

    Raises:
        ConfigError: If there is no source of NLI pairs.
        DataError: If the NLI file cannot be read.
    """
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
    progress: ProgressCallback,
) -> dict[str, Any]:
    """Train all three and store them; returns the report. Weights are drawn before any thread."""
    start = time.perf_counter()
    tokenizer = train_tokenizer(_vocabulary_texts(corpus, settings, source), settings.vocabulary)
    # a tokenizer keeps settings of its last call, so each thread has its own
    pair_tokenizer, device_tokenizer = nli_tokenizer(tokenizer), deepcopy(tokenizer)
    cloud, device, nli = (
        new_causal(settings.cloud, tokenizer, derive_seed(settings.seed, "cloud")),
        new_causal(settings.device, tokenizer, derive_seed(settings.seed, "device")),
        new_nli(settings.nli, pair_tokenizer, derive_seed(settings.seed, "nli")),
    )

    def language_model(which: str, model: Any, tokenizer: Any, draw: Draw, steps: int) -> Job:
        seed = derive_seed(settings.seed, which, "batches")
        train = partial(train_causal, model, tokenizer, draw, steps, settings, seed)
        return Job(f"{which} model", model, steps, train)

    draw = device_draw(corpus, device_tokenizer, settings.self_synthesis)
    report: dict[str, Any] = _on_two_threads(
        {
            "cloud": language_model(
                "cloud", cloud, tokenizer, cloud_draw(corpus, tokenizer), settings.cloud_steps
            ),
            "device": language_model(
                "device", device, device_tokenizer, draw, settings.device_steps
            ),
            "nli": Job(
                "NLI model",
                nli,
                settings.nli_steps,
                partial(train_nli, nli, pair_tokenizer, source, settings),
            ),
        },
        progress,
    )
    _save(target / "cloud", cloud, tokenizer)
    _save(target / "device", device, tokenizer)
    _save(target / "nli", nli, pair_tokenizer)
    report["cloud"] |= cloud_figures(cloud, tokenizer, corpus)
    report["nli"] |= accuracy(nli, pair_tokenizer, tested, settings)
    report |= {"target": corpus.target, "users": len(corpus.users), "vocabulary": len(tokenizer)}
    return report | {"seconds": round(time.perf_counter() - start, 1)}


def _on_two_threads(jobs: Mapping[str, Job], progress: ProgressCallback) -> dict[str, Any]:
    """Run the first job on this thread and the others one after the other beside it.

    Two networks at a time use two cores better than one network on two threads, and take no harm
    when a core is busy.
    """
    given_up = Event()

    def run(job: Job) -> dict[str, Any]:
        with one_thread(), stopwatch() as seconds:
            losses = job.train(_reporter(progress, job.phase, job.steps, given_up))
        return _summary(job.model, losses, seconds())

    (first, here), *rest = jobs.items()
    with ThreadPoolExecutor(max_workers=1) as beside:
        others = {name: beside.submit(run, job) for name, job in rest}
        try:
            return {first: run(here), **{name: other.result() for name, other in others.items()}}
        except BaseException:  # an interrupt too: the other thread would go on for minutes
            given_up.set()
            raise


@contextmanager
def stopwatch() -> Iterator[Callable[[], float]]:
    """Yield a function that tells the seconds since the block began."""
    start = time.perf_counter()
    yield lambda: round(time.perf_counter() - start, 1)


def _vocabulary_texts(corpus: Corpus, settings: BuildConfig, source: Source) -> list[str]:
    pairs = source(derive_seed(settings.seed, "vocabulary"), NLI_VOCABULARY_PAIRS, 1.0)
    return [*corpus.texts(), *(f"{premise}\n{hypothesis}" for premise, hypothesis, _ in pairs)]


def _reporter(progress: ProgressCallback, phase: str, steps: int, given_up: Event) -> StepDone:
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
