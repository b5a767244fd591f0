"""Natural-language inference both ways: does x entail x', and x' entail x? (Eq. 2 of CDCDA-PLM)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from conf.errors import ModelError
from conf.schema import NliModelConfig
from models.chat import clean
from models.loading import load_scorer, load_tokenizer
from models.names import local_or_hub

ENTAILMENT = "entailment"
Texts = tuple[str, str]


class PairEncoder:
    """Tokenises premise and hypothesis together.

    Attributes:
        truncated: Pairs that were cut to ``max_length`` so far.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        """Take a loaded tokenizer."""
        self.tokenizer = tokenizer
        self._max_length = max_length
        self.truncated = 0

    @classmethod
    def load(cls, config: NliModelConfig) -> PairEncoder:
        """Load the tokenizer from a local folder or by hub name.

        Raises:
            ModelError: If there is none.
        """
        source = local_or_hub(config.path)
        return cls(load_tokenizer(source, config.revision), config.max_length)

    def encode(self, pairs: Sequence[Texts]) -> list[dict[str, list[int]]]:
        """Tokenise each pair; what is too long is cut, the longer text first, and counted."""
        rows = self._tokenise(pairs, truncation=False)
        too_long = [i for i, row in enumerate(rows) if len(row["input_ids"]) > self._max_length]
        cut = self._tokenise([pairs[i] for i in too_long], truncation="longest_first")
        for index, row in zip(too_long, cut, strict=True):
            rows[index] = row
        self.truncated += len(too_long)
        return rows

    def count_too_long(self, pairs: Sequence[Texts]) -> int:
        """How many pairs do not fit as a whole; nothing is cut, and nothing added to the count."""
        rows = self._tokenise(pairs, truncation=False)
        return sum(len(row["input_ids"]) > self._max_length for row in rows)

    def _tokenise(
        self, pairs: Sequence[Texts], truncation: bool | str
    ) -> list[dict[str, list[int]]]:
        if not pairs:
            return []
        columns = self.tokenizer(
            [premise for premise, _ in pairs],
            [hypothesis for _, hypothesis in pairs],
            truncation=truncation,
            max_length=self._max_length if truncation else None,
            split_special_tokens=True,  # a typed "</s>" must not end the premise
            verbose=False,
        )
        return [
            {name: values[row] for name, values in columns.items()} for row in range(len(pairs))
        ]


def directed(pairs: Sequence[Texts]) -> list[Texts]:
    """Return x => x' of every pair (x, x'), then x' => x of every pair."""
    forward = [(clean(first), clean(second)) for first, second in pairs]
    return forward + [(second, first) for first, second in forward]


def undirected(scores: Sequence[float]) -> list[tuple[float, float]]:
    """Return the two scores of each pair from those of :func:`directed`'s."""
    half = len(scores) // 2
    return list(zip(scores[:half], scores[half:], strict=True))


def length_batches(rows: Sequence[Mapping[str, list[int]]], batch_size: int) -> list[list[int]]:
    """Return which rows are scored together, the longest first."""
    order = sorted(range(len(rows)), key=lambda index: -len(rows[index]["input_ids"]))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


class NliScorer:
    """Scores pairs of texts with a sequence classifier, in float32.

    Attributes:
        scored: Premise-hypothesis pairs scored so far; each text pair counts once per direction.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        batch_size: int,
    ) -> None:
        """Take a loaded classifier.

        Raises:
            ModelError: If none of its labels is called entailment.
        """
        self._model = model.eval()
        self._encoder = PairEncoder(tokenizer, max_length)
        self._batch_size = batch_size
        self._column = entailment_index(model.config.id2label or {})
        self.scored = 0

    @property
    def truncated(self) -> int:
        """Premise-hypothesis pairs that were cut to ``max_length`` so far."""
        return self._encoder.truncated

    @classmethod
    def load(cls, config: NliModelConfig, device: str = "cpu") -> NliScorer:
        """Load classifier and tokenizer from a local folder or by hub name.

        Raises:
            ModelError: If there is none, weights are missing, or no label is called entailment.
        """
        kind = AutoModelForSequenceClassification
        model = load_scorer(kind, "a sequence classifier", config, device)
        tokenizer = load_tokenizer(config.path, config.revision)
        return cls(model, tokenizer, config.max_length, config.batch_size)

    def both_ways(self, pairs: Sequence[Texts]) -> list[tuple[float, float]]:
        """Return (P(x => x'), P(x' => x)) for each pair (x, x')."""
        return undirected(self.entailment(directed(pairs)))

    def entailment(self, pairs: Sequence[Texts]) -> list[float]:
        """Return P(premise => hypothesis) of each pair, in batches of similar length."""
        rows = self._encoder.encode(pairs)
        scores = [0.0] * len(rows)
        for chosen in length_batches(rows, self._batch_size):
            for index, score in zip(chosen, self._score([rows[i] for i in chosen]), strict=True):
                scores[index] = score
        self.scored += len(pairs)
        return scores

    @torch.inference_mode()
    def _score(self, rows: list[dict[str, list[int]]]) -> list[float]:
        batch = self._encoder.tokenizer.pad(
            {name: [row[name] for row in rows] for name in rows[0]}, return_tensors="pt"
        )
        logits = self._model(**batch.to(self._model.device)).logits  # (B, labels)
        probabilities: list[float] = logits.softmax(dim=-1)[:, self._column].tolist()
        return probabilities


def entailment_index(labels: Mapping[Any, str]) -> int:
    """Return the index of the entailment label; checkpoints order their labels differently.

    Raises:
        ModelError: If no label, or more than one, is called entailment.
    """
    found = [int(index) for index, label in labels.items() if label.lower() == ENTAILMENT]
    if len(found) != 1:
        raise ModelError(
            f"NLI model: expected one label called '{ENTAILMENT}', got {sorted(labels.values())}; "
            "use a checkpoint whose config.json names its labels in id2label"
        )
    return found[0]
