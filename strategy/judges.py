"""What judges semantic consistency: an NLI classifier, or a sentence encoder where there is none.

The paper's filter wants entailment both ways. The cosine of sentence vectors is a deviation, for
machines without an NLI checkpoint; it has a threshold of its own (docs/assumptions.md). Nothing is
loaded before the first pair. The work can be cut into batches that are scored elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from conf.schema import NliModelConfig
from models.checkpoint import model_identity
from storage.hashing import hash_json
from strategy.device_memory import free_unused

Texts = tuple[str, str]
EMBEDDING = "embedding"


def scorer_of(judge: str, model: NliModelConfig, device: str) -> CloudNliScorer:
    """The configured judge (``filters.judge``); nothing is loaded yet."""
    return (EmbeddingScorer if judge == EMBEDDING else CloudNliScorer)(model, device)


class CloudNliScorer:
    """The NLI model as the augmentation sees it."""

    def __init__(self, config: NliModelConfig, device: str) -> None:
        """Remember what to load; nothing is loaded before the first pair."""
        self._config, self._device = config, device

    @cached_property
    def identity(self) -> str:
        """Content identity and length limit of the model."""
        config = self._config
        return hash_json([model_identity(config.path, config.revision), config.max_length])

    def both_ways(self, pairs: Sequence[Texts]) -> list[tuple[float, float]]:
        """Scores (x against x', x' against x) of each pair of texts, from 0 to 1."""
        return self.answers(self.score(self.questions(pairs)))

    def questions(self, pairs: Sequence[Texts]) -> list[Texts]:
        """What has to be scored for ``pairs``: each pair in both directions."""
        from models.nli import directed

        return directed(pairs)

    def batches(self, questions: Sequence[Texts]) -> list[list[int]]:
        """Which questions are scored together; a batch may be scored elsewhere."""
        from models.nli import length_batches

        return length_batches(self._encoder.encode(questions), self._config.batch_size)

    def score(self, questions: Sequence[Texts]) -> list[float]:
        """Probability that the first text of each question entails the second."""
        probabilities: list[float] = self._scorer.entailment(questions)
        return probabilities

    def answers(self, scores: Sequence[float]) -> list[tuple[float, float]]:
        """Both scores of each pair, from those of its :meth:`questions`."""
        from models.nli import undirected

        return undirected(scores)

    def cut(self, pairs: Sequence[Texts]) -> int:
        """How many of the pairs are judged by a part of their text, as the whole does not fit."""
        forward = self.questions(pairs)[: len(pairs)]
        number: int = self._encoder.count_too_long(forward)
        return number

    def release(self) -> None:
        """Forget the network; another pair loads it again."""
        if vars(self).pop("_scorer", None) is not None:
            free_unused(self._device)

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel without what is loaded."""
        return type(self), (self._config, self._device)

    @cached_property
    def _scorer(self) -> Any:
        from models.nli import NliScorer

        return NliScorer.load(self._config, self._device)

    @cached_property
    def _encoder(self) -> Any:
        from models.nli import PairEncoder

        return PairEncoder.load(self._config)


class EmbeddingScorer(CloudNliScorer):
    """Sentence vectors as the augmentation sees them; the cosine is the same in both directions."""

    @cached_property
    def identity(self) -> str:
        """Content identity and length limit of the encoder, apart from a classifier's."""
        return hash_json([EMBEDDING, super().identity])

    def questions(self, pairs: Sequence[Texts]) -> list[Texts]:
        """What has to be scored: each pair once."""
        return list(pairs)

    def score(self, questions: Sequence[Texts]) -> list[float]:
        """Cosine of the sentence vectors of each pair."""
        cosines: list[float] = self._scorer.cosines(questions)
        return cosines

    def cut(self, pairs: Sequence[Texts]) -> int:
        """How many of the pairs have a text that does not fit as a whole."""
        from models.sentences import too_long

        texts = list(dict.fromkeys(text for pair in pairs for text in pair))
        long = too_long(self._encoder.tokenizer, texts, self._config.max_length)
        return sum(not long.isdisjoint(pair) for pair in pairs)

    def answers(self, scores: Sequence[float]) -> list[tuple[float, float]]:
        """The same score in both directions."""
        return [(score, score) for score in scores]

    @cached_property
    def _scorer(self) -> Any:
        from models.sentences import SentenceScorer

        return SentenceScorer.load(self._config, self._device)
