"""Exposure of a secret, and how well losses tell members from outsiders: pure functions.

Exposure is that of Carlini et al., "The Secret Sharer" (USENIX Security 2019), section 4.2: of
a secret s among the candidates R that it was drawn from, log2 |R| - log2 rank(s). R is sampled, so
an exposure is at most log2 of the sample's size; a secret that was never seen has a random rank.

Membership inference follows Yeom et al. (CSF 2018), by loss, calibrated with the base model
that an attacker has too (Watson et al., ICLR 2022): members are the records whose loss the adapter
lowers most. In log space that is the likelihood ratio of the adapted model to a reference model,
M_base (Carlini et al., S&P 2022, call for such a reference and for reporting the true-positive
rate at a low false-positive rate). The AUC is the probability that a member scores above an
outsider, ties half.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from types import MappingProxyType

import numpy as np
from scipy.stats import rankdata

# False-positive rate -> outsiders without which it cannot be said who is above it.
FEWEST_OUTSIDERS = MappingProxyType({0.01: 100, 0.001: 10_000})


def exposure(secret: float, others: Sequence[float]) -> float:
    """Exposure in bits; larger scores rank first, ties take their middle rank.

    Args:
        secret: Score of the secret.
        others: Scores of candidates that were drawn alike.
    """
    above = sum(other > secret for other in others)
    tied = sum(other == secret for other in others)
    return math.log2(len(others) + 1) - math.log2(1 + above + tied / 2)


def chance_exposure(num_others: int) -> float:
    """Mean exposure of a secret with a random rank: some 1.44 bits for many candidates."""
    ranks = range(1, num_others + 2)
    return math.log2(len(ranks)) - fmean(math.log2(rank) for rank in ranks)


def auc(members: Sequence[float], outsiders: Sequence[float]) -> float | None:
    """P(member's score > outsider's), ties half; None where one side is empty."""
    if not members or not outsiders:
        return None
    ranks = rankdata(np.array([*members, *outsiders], dtype=float))
    least = len(members) * (len(members) + 1) / 2
    return float((ranks[: len(members)].sum() - least) / (len(members) * len(outsiders)))


def threshold(outsiders: Sequence[float], rate: float) -> float | None:
    """The score above which at most the share ``rate`` of the outsiders are.

    None where there are too few of them to say (:data:`FEWEST_OUTSIDERS`).
    """
    if len(outsiders) < FEWEST_OUTSIDERS[rate]:
        return None
    return float(np.sort(np.asarray(outsiders))[::-1][int(rate * len(outsiders))])


def share_above(scores: Sequence[float], limit: float | None) -> float | None:
    """True-positive rate: the share of ``scores`` above ``limit``; None without either."""
    if limit is None or not scores:
        return None
    return fmean(score > limit for score in scores)
