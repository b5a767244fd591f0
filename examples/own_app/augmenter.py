"""An augmenter of one's own: the miniature world says every shared text in other words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from conf.seeds import derive_seed
from lamp import world
from lamp.metrics import rouge_l
from lamp.records import Pair
from strategy.augmenter import Augmented
from strategy.candidates import Shared
from strategy.filters import Candidate, Scores, length_ratio


class Paraphrases:
    """Takes the place of the cloud's models; the world's paraphrase is entailed by definition."""

    k = 2

    def write(self, shared: Shared, k: int, *_: Any) -> Augmented:
        """Write ``k`` paraphrases of every shared pair; the response stays."""
        return Augmented(
            {
                user: tuple(paraphrased(pair, index) for pair in pairs for index in range(k))
                for user, pairs in shared.items()
            }
        )

    def forget(self, user: str, records: Sequence[str]) -> None:
        """Nothing is kept, so there is nothing to forget."""


def paraphrased(pair: Pair, index: int) -> Candidate:
    """One similar pair with its filter scores."""
    text = world.paraphrase(pair.input, derive_seed(index, pair.id))
    scores = Scores(
        entails=1.0,
        entailed=1.0,
        rouge_l=rouge_l(text, pair.input),
        length_ratio_characters=length_ratio(len(pair.input), len(text)),
        length_ratio_words=length_ratio(len(pair.input.split()), len(text.split())),
    )
    return Candidate(pair.id, Pair(f"{pair.id}/{index}", text, pair.response), None, scores)
