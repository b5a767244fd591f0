"""What scoring a pair of texts both ways costs: pair by pair, or many in a batch."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path

from transformers import pipeline

from benchmarks.material import make
from benchmarks.measure import Table, Way, measure
from conf.schema import TransformerSize
from models.miniature.nli import new_nli, nli_tokenizer
from models.nli import ENTAILMENT, NliScorer

SIZE = TransformerSize(layers=3, width=128, heads=2, feed_forward=256)
CAUSAL = TransformerSize(layers=1, width=64, heads=2, feed_forward=64)  # comes with the material
BATCH = 64


def run(*, size: TransformerSize = SIZE, pairs: int = 256, rounds: int = 3) -> list[Table]:
    """Measure on texts of the miniature world."""
    with tempfile.TemporaryDirectory() as name:
        material = make(Path(name), CAUSAL, users=8, records=max(8, pairs // 8 + 1))
        tokenizer = nli_tokenizer(material.tokenizer)
        model = new_nli(size, tokenizer, seed=0).eval()
    texts = [pair.input for user in material.data.targets for pair in user.pairs]
    asked = list(itertools.pairwise(texts[: pairs + 1]))
    classify = pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")
    scorer = NliScorer(model, tokenizer, max_length=256, batch_size=BATCH)
    ways = [
        Way(
            "per pair and direction, transformers' pipeline", lambda: _peer(classify, asked), pairs
        ),
        Way(f"ours, both ways in batches of {BATCH}", lambda: _ours(scorer, asked), pairs),
    ]
    setting = f"{size.layers} layers of width {size.width}, float32; {pairs} pairs of inputs."
    return [Table("way", setting, "pair", "mean P(entailment)", measure(ways, rounds))]


def _peer(classify: object, pairs: Sequence[tuple[str, str]]) -> str:
    total = 0.0
    for first, second in pairs:
        for premise, hypothesis in ((first, second), (second, first)):
            found = classify(  # type: ignore[operator]
                {"text": premise, "text_pair": hypothesis}, top_k=None, truncation=True
            )
            total += next(label["score"] for label in found if label["label"] == ENTAILMENT)
    return f"{total / (2 * len(pairs)):.4f}"


def _ours(scorer: NliScorer, pairs: Sequence[tuple[str, str]]) -> str:
    return f"{sum(map(sum, scorer.both_ways(pairs))) / (2 * len(pairs)):.4f}"
