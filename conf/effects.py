"""Keys that were set by hand although nothing reads them beside the others.

A key without effect is a mistake that no result shows, so it is refused with what would make it
count. A rule is a function that says why a key is not read; the first one that does wins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from conf.checks import LOADED, THRESHOLD_OF_JUDGE
from conf.errors import ConfigError
from conf.schema import Config

# What shapes the writing of new pairs, and is not read where they come from a file.
WRITING_KEYS = tuple(
    f"augmenter.{key}"
    for key in (
        "prompt", "examples", "prefill", "labels", "sampling", "batch_size", "endpoint", "models"
    )
)  # fmt: skip
USED_BY_KIND = {
    "fixed": {"ratio"},
    "uniform": {"low", "high"},
    "beta": {"alpha", "beta"},
    "mixed": {"groups"},
    "per_user": {"csv"},
}
DISTRIBUTION_KEYS = set[str]().union(*USED_BY_KIND.values())


def check_effect(config: Config, given: Sequence[str], *, tuning: bool = False) -> None:
    """Refuse a key that was given by hand although nothing reads it beside the others.

    Args:
        config: The composed configuration.
        given: Dotted paths of the keys that were set by hand.
        tuning: Whether the configuration is for ``python -m sim tune``.

    Raises:
        ConfigError: If such a key is among ``given``, e.g. ``privacy.ratio`` under ``mixed``.
    """
    for path in given:
        if path.startswith("tune.") and not tuning:
            raise ConfigError(f"{path} has no effect on a run; add it to: python -m sim tune")
    for path in given:
        for rule in UNREAD:
            if reason := rule(config, path):
                raise ConfigError(f"{path} has no effect {reason}")


def _unread_distribution(config: Config, path: str) -> str | None:
    kind, key = config.privacy.kind, path.removeprefix("privacy.")
    if key == path or key not in DISTRIBUTION_KEYS - USED_BY_KIND[kind]:
        return None
    reader = next(name for name, used in USED_BY_KIND.items() if key in used)
    return f"while privacy.kind is {kind}; add privacy={reader}"


def _unread_threshold(config: Config, path: str) -> str | None:
    judge, other = config.filters.judge, THRESHOLD_OF_JUDGE[config.filters.judge]
    if path in {f"filters.{key}" for key in THRESHOLD_OF_JUDGE.values()} - {f"filters.{other}"}:
        return f"while filters.judge is {judge}; set filters.{other}, or choose the other judge"
    return None


def _unread_checkpoint(config: Config, path: str) -> str | None:
    parts = path.split(".")
    if config.model.build is None or len(parts) != 3 or parts[0] != "model":
        return None
    if path == "model.nli.nli_data":
        return "while model=miniature builds its models; set model.build.nli_data"
    if parts[1] in LOADED and parts[2] in ("path", "revision", "gguf_file", "sha256"):
        return (
            f"while model={config.model.name} builds its models; choose a preset that loads them, "
            "as model=smollm2 does"
        )
    return None


def _unread_head(config: Config, path: str) -> str | None:
    if path.startswith("model.nli.head.") and config.model.nli.nli_data is None:
        return "without pairs to train on; set model.nli.nli_data=<file>"
    return None


def _unread_split(config: Config, path: str) -> str | None:
    held_out = config.split == "holdout"
    if path == "holdout" and not held_out:
        return f"while split is {config.split}; add split=holdout"
    limits = (config.max_records, config.target_records)
    if path == "split_seed" and not held_out and limits == (None, None):
        return "while all records are used; add split=holdout, max_records or target_records"
    return None


def _unread_augmenter(config: Config, path: str) -> str | None:
    """Why a key of the augmenter is not read; None for one that is."""
    augmenter = config.augmenter
    if augmenter.file is not None and path.startswith(WRITING_KEYS):
        return "while augmenter.file is set: nothing is written anew; leave it out"
    if path == "augmenter.labels" and augmenter.prompt == "paraphrase":
        return "beside augmenter.prompt=paraphrase, which keeps the shared response; leave it out"
    if path == "augmenter.examples" and augmenter.prompt in ("paper", "rewrite", "paraphrase"):
        return f"beside augmenter.prompt={augmenter.prompt}; add augmenter.prompt=few_shot"
    return None


def _unread_thresholds(config: Config, path: str) -> str | None:
    if config.filters.keep_share is not None and path.startswith("filters.eps_"):
        return "while filters.keep_share is set; add filters=paper"
    return None


def _unread_runtime(config: Config, path: str) -> str | None:
    runtime = config.evaluation.runtime
    if path == "evaluation.weights" and runtime != "llamacpp":
        return f"while evaluation.runtime is {runtime}; add evaluation.runtime=llamacpp"
    if path == "evaluation.merge_adapters" and runtime == "llamacpp":
        return "while evaluation.runtime is llamacpp; leave it out"
    if path == "evaluation.merge_adapters" and not config.qlora.dequantise_once:
        return "on weights in 4 bits; add qlora.dequantise_once=true"
    return None


UNREAD: tuple[Callable[[Config, str], str | None], ...] = (
    _unread_distribution,
    _unread_thresholds,
    _unread_threshold,
    _unread_checkpoint,
    _unread_head,
    _unread_split,
    _unread_augmenter,
    _unread_runtime,
)
