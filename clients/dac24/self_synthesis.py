"""Self-synthesis: the device's own model rewrites what the device keeps; nothing leaves it.

M_base writes, without the adapter, so a record's texts do not depend on when it was kept and are
written once. The ROUGE-1 check of Qin et al. (DAC'24) drops what is too unlike the original; a word
for word copy is dropped as well. Every text is counted: kept, unreadable, copy or too unlike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from clients.base import Base
from conf.schema import StreamConfig
from conf.seeds import derive_seed
from lamp.metrics import rouge1
from lamp.prompts import rewriting_prompt, rewritten
from lamp.records import Pair
from models import lora
from models.generation import generate

SynthesisOutcome = Literal["kept", "unreadable", "copy", "unlike"]
FATES: tuple[SynthesisOutcome, ...] = ("kept", "unreadable", "copy", "unlike")


@dataclass(frozen=True, slots=True)
class Synthesis:
    """What one call wrote.

    Attributes:
        pairs: Pairs that were kept per record, in their order; ids are "<record>/own-<n>".
        fates: How many texts were kept or dropped, by reason.
    """

    pairs: tuple[tuple[Pair, ...], ...]
    fates: Counter[SynthesisOutcome]


def synthesise(
    base: Base, records: Sequence[Pair], config: StreamConfig, seed: int, system: str | None
) -> Synthesis:
    """Write ``config.sets`` pairs similar to each record.

    Args:
        base: The device's model.
        records: Records that the device keeps.
        config: Number of texts, check and sampling.
        seed: The user's seed; each text has its own below it.
        system: System turn of the device's model.
    """
    inputs = _rewrite(base, [pair.input for pair in records], config, seed, system)
    if config.synth_response == "generate":
        texts = [pair.response for pair in records]
        responses = _rewrite(base, texts, config, derive_seed(seed, "response"), system)
    else:
        responses = [[pair.response] * config.sets for pair in records]
    fates: Counter[SynthesisOutcome] = Counter()
    made = []
    for pair, wordings, answers in zip(records, inputs, responses, strict=True):
        own = [_judge(pair, *each, config) for each in zip(wordings, answers, strict=True)]
        fates.update(fate for fate, _ in own)
        kept = (text for _, text in own if text is not None)
        made.append(tuple(replace(text, id=f"{pair.id}/own-{n}") for n, text in enumerate(kept)))
    return Synthesis(tuple(made), fates)


def _judge(
    pair: Pair, wording: str | None, response: str | None, config: StreamConfig
) -> tuple[SynthesisOutcome, Pair | None]:
    """The fate of one text, and the pair where it is kept."""
    if wording is None or response is None:
        return "unreadable", None
    if wording == pair.input:
        return "copy", None
    if rouge1(wording, pair.input) < config.min_rouge1:
        return "unlike", None
    return "kept", replace(pair, input=wording, response=response)


def _rewrite(
    base: Base, texts: Sequence[str], config: StreamConfig, seed: int, system: str | None
) -> list[list[str | None]]:
    """``config.sets`` wordings of each text, None where unreadable; an empty text stays empty."""
    asked = [(text, n) for text in texts if text for n in range(config.sets)]
    with lora.disabled(base.model):
        replies = generate(
            base.model,
            base.tokenizer,
            [rewriting_prompt(text) for text, _ in asked],
            seeds=[derive_seed(seed, text, n) for text, n in asked],
            sampling=config.sampling,
            batch_size=config.batch_size,
            system=system,
        )
    found = iter([rewritten(reply.text) for reply in replies])
    return [[next(found) if text else "" for _ in range(config.sets)] for text in texts]
