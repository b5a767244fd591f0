"""What a record of the stream is worth keeping: the three scores of Qin et al. (DAC'24).

All are "higher is better" and look at nothing but the device's own text and model. What the text
of the paper leaves open is marked and stands in docs/assumptions.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lamp.dialogue.lexicons import Lexicon

NO_DOMAIN = ""
ALONE = 1.0  # dissimilarity of a record to a domain of which nothing is kept: unrelated


def embedding_entropy(masses: NDArray[np.float64], num_parts: int) -> float:
    """EOE: how evenly a text's content is spread over its tokens, in [0, 1].

    ``-sum p_i log p_i / log n`` with ``p_i`` the share of part i in all masses. The paper does not
    say how p comes from an embedding (re-derived): :func:`models.embedding.embed` knows three ways.

    Args:
        masses: (m,) what each part weighs.
        num_parts: n, at least m; a text of one part scores 0.
    """
    if num_parts < 2 or not masses.sum():
        return 0.0
    shares = masses[masses > 0] / masses.sum()
    return float(-(shares * np.log(shares)).sum() / np.log(num_parts))


def domain_score(words: Sequence[str], lexicons: Sequence[Lexicon]) -> float:
    """DSS: mean over the lexicons of the share of words that stand in it, in [0, 1]."""
    if not words or not lexicons:
        return 0.0
    return sum(_hits(words, each) for each in lexicons) / (len(words) * len(lexicons))


def dominant_domain(words: Sequence[str], lexicons: Sequence[Lexicon]) -> str:
    """The domain whose lexicon has most of the words; the first of several, none without a hit."""
    best = max(lexicons, key=lambda each: _hits(words, each), default=None)
    return best.domain if best is not None and _hits(words, best) else NO_DOMAIN


def dissimilarity(vector: NDArray[np.float32], others: NDArray[np.float32]) -> float:
    """IDD: mean of 1 - cosine to the kept records of the same domain, in [0, 2].

    The formula could not be read; it is re-derived, as is the 1 where nothing is kept.

    Args:
        vector: (D,) embedding of the record, of length 1.
        others: (R, D) embeddings of the kept records of its domain, each of length 1.
    """
    return float(1 - (others @ vector).mean()) if len(others) else ALONE


def _hits(words: Sequence[str], lexicon: Lexicon) -> int:
    known = frozenset(lexicon.words)
    return sum(word in known for word in words)
