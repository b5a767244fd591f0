"""Which other pair of a user is most like a given one, by the words of the inputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from lamp.records import Pair


def most_similar(pair: Pair, others: Sequence[Pair]) -> Pair | None:
    """The other pair that shares most words with ``pair``, of the same response if any has it.

    Similarity is the F1 of the bags of words of the inputs; the first one wins a tie.
    """
    candidates = [other for other in others if other.id != pair.id and other.input != pair.input]
    same = [other for other in candidates if other.response == pair.response]
    pool = same or candidates
    return max(pool, key=lambda other: _overlap(pair.input, other.input)) if pool else None


def _overlap(first: str, second: str) -> float:
    a, b = _bag(first), _bag(second)
    return 2 * sum((a & b).values()) / max(1, sum(a.values()) + sum(b.values()))


@lru_cache(maxsize=4096)
def _bag(text: str) -> Counter[str]:
    return Counter(text.split())
