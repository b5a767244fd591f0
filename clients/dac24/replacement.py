"""Which kept record makes room for a new one, once the buffer is full.

A rule maps (buffer, newcomer, what to do it by) to a place, or to None where the newcomer is let
go. Qin et al. (DAC'24) replace a record that is beaten in all three scores; the rules beside it are
their baselines. Draws and ties come from the generator that is passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clients.dac24.buffer import Buffer, BufferEntry
from clients.dac24.scores import dissimilarity
from protocol.recipe import Score


@dataclass(frozen=True, slots=True)
class ReplacementContext:
    """What a rule decides by.

    Attributes:
        scores: Scores that the newcomer must win in.
        seen: Records of the stream so far, the newcomer included.
        generator: Source of draws and ties.
    """

    scores: Sequence[Score]
    seen: int
    generator: np.random.Generator


Rule = Callable[[Buffer, BufferEntry, ReplacementContext], int | None]


def by_scores(buffer: Buffer, newcomer: BufferEntry, means: ReplacementContext) -> int | None:
    """A record that the newcomer beats in every score; one of several is drawn."""
    beaten = np.ones(len(buffer), dtype=bool)
    for name in means.scores:
        mine, theirs = _SCORES[name](buffer, newcomer)
        beaten &= mine > theirs
    return _draw(np.flatnonzero(beaten), means)


def at_random(buffer: Buffer, _: BufferEntry, means: ReplacementContext) -> int | None:
    """Reservoir sampling: every record of the stream is kept with the same probability."""
    place = int(means.generator.integers(means.seen))
    return place if place < len(buffer) else None


def first_in(buffer: Buffer, _newcomer: BufferEntry, _means: ReplacementContext) -> int | None:
    """The record that came first; every newcomer is taken."""
    return buffer.oldest


def k_center(buffer: Buffer, newcomer: BufferEntry, means: ReplacementContext) -> int | None:
    """One of the two most alike, so that the kept ones cover the space (greedy k-center).

    Of the closest pair among the kept records and the newcomer the one goes that is closer to a
    third; where the newcomer is of the pair, it is let go.
    """
    vectors = np.vstack([buffer.vectors(), newcomer.vector])
    distances = 1.0 - (vectors @ vectors.T).astype(np.float64)
    np.fill_diagonal(distances, np.inf)
    first, second = np.unravel_index(np.argmin(distances), distances.shape)
    if len(buffer) in (first, second):
        return None
    nearest = [np.partition(distances[place], 1)[1] for place in (first, second)]
    if nearest[0] == nearest[1]:
        return _draw(np.array([first, second]), means)
    return int(first if nearest[0] < nearest[1] else second)


RULES: dict[str, Rule] = {
    "scores": by_scores,
    "random": at_random,
    "fifo": first_in,
    "k_center": k_center,
}


def _draw(places: NDArray[np.int64], means: ReplacementContext) -> int | None:
    return int(means.generator.choice(places)) if len(places) else None


def _entropy(buffer: Buffer, newcomer: BufferEntry) -> tuple[float, NDArray[np.float64]]:
    return newcomer.entropy, np.array([each.entropy for each in buffer])


def _domain(buffer: Buffer, newcomer: BufferEntry) -> tuple[float, NDArray[np.float64]]:
    return newcomer.domain_score, np.array([each.domain_score for each in buffer])


def _dissimilarity(buffer: Buffer, newcomer: BufferEntry) -> tuple[float, NDArray[np.float64]]:
    own = dissimilarity(newcomer.vector, buffer.vectors(newcomer.domain))
    return own, buffer.dissimilarities()


_SCORES: dict[Score, Callable[[Buffer, BufferEntry], tuple[float, NDArray[np.float64]]]] = {
    "entropy": _entropy,
    "domain": _domain,
    "dissimilarity": _dissimilarity,
}
