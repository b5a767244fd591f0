"""How near two texts are in meaning: the cosine of their sentence vectors.

A vector is the mean of an encoder's last hidden states over the text's tokens, scaled to length 1,
as all-MiniLM-L6-v2 and its like are trained and published (sentence-transformers: mean pooling,
then normalisation).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import AutoModel, PreTrainedModel, PreTrainedTokenizerBase

from conf.schema import NliModelConfig
from models.chat import clean
from models.loading import load_scorer, load_tokenizer

Texts = tuple[str, str]


class SentenceScorer:
    """Embeds texts with an encoder, in float32, and compares them.

    Attributes:
        truncated: Texts that were cut to ``max_length`` so far.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        batch_size: int,
    ) -> None:
        """Take a loaded encoder."""
        self._model, self._tokenizer = model.eval(), tokenizer
        self._max_length, self._batch_size = max_length, batch_size
        self.truncated = 0

    @classmethod
    def load(cls, config: NliModelConfig, device: str = "cpu") -> SentenceScorer:
        """Load encoder and tokenizer from a local folder or by hub name.

        Raises:
            ModelError: If there is none, or weights are missing.
        """
        model = load_scorer(AutoModel, "a sentence encoder", config, device)
        tokenizer = load_tokenizer(config.path, config.revision)
        return cls(model, tokenizer, config.max_length, config.batch_size)

    def cosines(self, pairs: Sequence[Texts]) -> list[float]:
        """Return the cosine of each pair of texts; a text that stands in several is embedded once.

        Two empty texts have 1, an empty and another text 0, and what is below 0 counts as 0.
        """
        cleaned = [(clean(first), clean(second)) for first, second in pairs]
        texts = list(dict.fromkeys(text for pair in cleaned for text in pair if text.strip()))
        rows = {text: row for row, text in enumerate(texts)}
        vectors = self.embed(texts)
        return [
            float((vectors[rows[first]] @ vectors[rows[second]]).clamp(0, 1))
            if first in rows and second in rows
            else float(first.strip() == second.strip())
            for first, second in cleaned
        ]

    @torch.inference_mode()
    def embed(self, texts: Sequence[str]) -> Tensor:
        """Return the (N, D) float32 sentence vectors of ``texts``, each of length 1."""
        if not texts:
            return torch.zeros(0, self._model.config.hidden_size)
        rows = self._encode(texts)
        order = sorted(range(len(rows)), key=lambda index: -len(rows[index]))
        vectors = torch.zeros(len(rows), self._model.config.hidden_size)
        for start in range(0, len(order), self._batch_size):
            chosen = order[start : start + self._batch_size]
            vectors[chosen] = self._pooled([rows[index] for index in chosen])
        return vectors

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        # a typed "[SEP]" must not end the text
        settings = {"split_special_tokens": True, "verbose": False}
        whole = self._tokenizer(list(texts), **settings)["input_ids"]
        cut = [place for place, row in enumerate(whole) if len(row) > self._max_length]
        self.truncated += len(cut)
        for place in cut:
            whole[place] = self._tokenizer(
                texts[place], truncation=True, max_length=self._max_length, **settings
            )["input_ids"]
        return list(whole)

    def _pooled(self, rows: list[list[int]]) -> Tensor:
        batch = self._tokenizer.pad({"input_ids": rows}, return_tensors="pt")
        states = self._model(**batch.to(self._model.device)).last_hidden_state  # (B, T, D)
        mask = batch["attention_mask"].unsqueeze(-1).to(states.dtype)  # (B, T, 1)
        mean = (states * mask).sum(1) / mask.sum(1)
        return torch.nn.functional.normalize(mean, dim=-1).cpu()


def too_long(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int) -> set[str]:
    """Return the texts of which an encoder sees ``max_length`` tokens only."""
    if not texts:
        return set()
    rows = tokenizer([clean(text) for text in texts], split_special_tokens=True, verbose=False)
    lengths = map(len, rows["input_ids"])
    return {text for text, length in zip(texts, lengths, strict=True) if length > max_length}
