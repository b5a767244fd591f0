"""The three filters on the input x (Eq. 2-4), as pure functions of stored scores.

Every score of every candidate is computed once and stored; choosing thresholds needs no model. A
rejection counts under the first failing filter, in the paper's order, so the counts are disjoint:
``generated == len(kept) + sum(rejected.values())``.

Instead of passing thresholds, the best share of a user's candidates can be kept (``keep_share``):
see :func:`best`.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal

from scipy.stats import rankdata

from conf.schema import FiltersConfig
from lamp.records import Pair
from storage.hashing import hash_json

SEMANTIC = "scf"
DIVERSITY = "tdf"
LENGTH = "lsf"
QUANTILE = "quantile"
NOT_DRAWN = "not_drawn"


@dataclass(frozen=True, slots=True)
class Scores:
    """All filter scores of one candidate against the pair it was made from.

    Attributes:
        entails: P_NLI(x => x_syn); with ``filters.judge=embedding`` the cosine of sentence vectors.
        entailed: P_NLI(x_syn => x); with ``filters.judge=embedding`` the same cosine.
        rouge_l: ROUGE-L F1 of x and x_syn.
        length_ratio_characters: len(x_syn) / len(x) in characters.
        length_ratio_words: The same in words.
    """

    entails: float
    entailed: float
    rouge_l: float
    length_ratio_characters: float
    length_ratio_words: float


@dataclass(frozen=True, slots=True)
class Candidate:
    """One generated pair, or the reason why the reply held none.

    Attributes:
        source_id: Id of the shared pair.
        pair: The synthetic pair; None when the reply could not be read.
        unreadable: Reason when the reply could not be read.
        scores: Filter scores; None when the reply could not be read.
        rejected_by: Why a filter of :mod:`strategy.extra_filters` rejects it; None for no reason.
        writer: Which model wrote it.
    """

    source_id: str
    pair: Pair | None
    unreadable: str | None
    scores: Scores | None
    rejected_by: str | None = None
    writer: str = ""


@dataclass(frozen=True, slots=True)
class Selection:
    """Outcome of one pass over the candidates of one user."""

    kept: tuple[Pair, ...]
    rejected: Mapping[str, int]  # reason -> number of candidates
    generated: int
    kept_by: Mapping[str, int] = field(default_factory=dict)  # writer -> number of kept


def select(candidates: Sequence[Candidate], config: FiltersConfig) -> Selection:
    """Keep the candidates that pass all three filters, or the best share where one is asked for."""
    reasons = rejections(candidates, config)
    return _keep(candidates, lambda place, _: reasons[place])


def select_random(candidates: Sequence[Candidate], config: FiltersConfig, seed: int) -> Selection:
    """Keep as many readable candidates as the filters would, drawn at random (ablation RS)."""
    size = len(select(candidates, config).kept)
    readable = [place for place, each in enumerate(candidates) if each.pair is not None]
    drawn = set(random.Random(seed).sample(readable, size))
    return _keep(
        candidates,
        lambda place, each: each.unreadable or (None if place in drawn else NOT_DRAWN),
    )


def select_readable(candidates: Sequence[Candidate]) -> Selection:
    """Keep every candidate that could be read (ablation -DS)."""
    return _keep(candidates, lambda _, each: each.unreadable)


def rejections(candidates: Sequence[Candidate], config: FiltersConfig) -> list[str | None]:
    """The first reason to reject each of one user's candidates, or None to keep it."""
    if config.keep_share is None:
        return [rejection(each, config) for each in candidates]
    chosen = best(candidates, config)
    return [
        each.unreadable
        if each.scores is None
        else (each.rejected_by if place in chosen else QUANTILE)
        for place, each in enumerate(candidates)
    ]


def best(candidates: Sequence[Candidate], config: FiltersConfig) -> set[int]:
    """Places of the best ``keep_share`` of one user's readable candidates, rounded half up.

    Each score ranks the candidates: the smaller of the two entailment probabilities falling,
    ROUGE-L rising, the distance of the length ratio from 1 on a log scale rising; equal scores
    share their mean rank. The best have the lowest sum of the three; of equal sums a hash of the
    texts decides. What a further filter objects to afterwards is not replaced.
    """
    readable = [place for place, each in enumerate(candidates) if each.scores is not None]
    made = [scores for place in readable if (scores := candidates[place].scores) is not None]
    if not made:
        return set()
    ranks = (
        rankdata([-min(scores.entails, scores.entailed) for scores in made])
        + rankdata([scores.rouge_l for scores in made])
        + rankdata([_length_distance(_length_ratio(scores, config)) for scores in made])
    )
    order = sorted(
        range(len(made)), key=lambda n: (float(ranks[n]), _content_hash(candidates[readable[n]]))
    )
    share = Decimal(str(config.keep_share)) * len(made)
    return {readable[n] for n in order[: int(share.to_integral_value(ROUND_HALF_UP))]}


def _length_distance(ratio: float) -> float:
    return abs(math.log(ratio)) if 0 < ratio < math.inf else math.inf


def _content_hash(candidate: Candidate) -> str:
    pair = candidate.pair
    return hash_json([pair and pair.input, pair and pair.response])


def rejection(candidate: Candidate, config: FiltersConfig) -> str | None:
    """The first reason to reject ``candidate`` by thresholds, or None to keep it."""
    if candidate.scores is None:
        return candidate.unreadable
    scores = candidate.scores
    if min(scores.entails, scores.entailed) < _least_consistency(config):
        return SEMANTIC
    if scores.rouge_l > config.eps_tdf:
        return DIVERSITY
    if not config.eps_min_len <= _length_ratio(scores, config) <= config.eps_max_len:
        return LENGTH
    return candidate.rejected_by


def _keep(
    candidates: Sequence[Candidate], reason_of: Callable[[int, Candidate], str | None]
) -> Selection:
    """Keep the candidates without a reason against them, and count the others by reason."""
    reasons = [reason_of(place, candidate) for place, candidate in enumerate(candidates)]
    judged = list(zip(candidates, reasons, strict=True))
    kept = [each.pair for each, reason in judged if reason is None and each.pair is not None]
    rejected = Counter(reason for reason in reasons if reason is not None)
    writers = Counter(candidate.writer for candidate, reason in judged if reason is None)
    return Selection(tuple(kept), dict(rejected), len(candidates), dict(writers))


def _least_consistency(config: FiltersConfig) -> float:
    return config.eps_embedding if config.judge == "embedding" else config.eps_scf


def _length_ratio(scores: Scores, config: FiltersConfig) -> float:
    if config.length_unit == "words":
        return scores.length_ratio_words
    return scores.length_ratio_characters


def length_ratio(original: int, written: int) -> float:
    """Eq. 4 as a ratio; an empty original accepts only an empty text."""
    if original == 0:
        return 1.0 if written == 0 else float("inf")
    return written / original
