"""What becomes of the texts that a device writes for itself."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from clients.base import Base
from clients.dac24 import self_synthesis
from clients.dac24.self_synthesis import synthesise
from conf.schema import StreamConfig
from lamp.prompts import rewriting_prompt, rewritten
from lamp.records import Pair
from models.generation import Generation

RECORDS = (
    Pair("r1", "the council backed the bridge", "bridge backed"),
    Pair("r2", "fans praised the concert", "concert praised"),
)
REPLIES = {
    RECORDS[0].input: "[the board backed the bridge]",  # 4 of 5 words: kept
    RECORDS[1].input: "[rain again]",
    RECORDS[0].response: "[bridge endorsed]",
    RECORDS[1].response: "no brackets",
}


@pytest.fixture
def base(monkeypatch, qwen2_folder):
    """A real base whose replies are written here; the seam is the generation."""
    from clients.base import load
    from conf.schema import QLoraConfig

    def reply(_model, _tokenizer, prompts, seeds, **_):
        known = {rewriting_prompt(text): answer for text, answer in REPLIES.items()}
        return [Generation(known[prompt], 5, True) for prompt in prompts]

    monkeypatch.setattr(self_synthesis, "generate", reply)
    return load(qwen2_folder, QLoraConfig(compute_dtype="float32"), 1)


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        ("[a text]", "a text"),
        ("Sure: [a [b] c] done", "a [b] c"),
        ("no brackets", None),
        ("] [", None),
        ("[ ]", None),
        ("[cut off", None),
        ("[a text]\n\nHere is another one: [b text]", "a text"),
        ("[a [b] cut off", None),
        ("<think>[no]</think>[a text]", "a text"),
        ("[...]", None),
    ],
)
def test_a_reply_holds_its_text_in_brackets(reply, text):
    assert rewritten(reply) == text


def test_the_response_is_kept_and_texts_too_unlike_are_dropped(base: Base):
    made = synthesise(base, RECORDS, StreamConfig(sets=2), seed=1, system=None)
    assert made.pairs == (
        (
            Pair("r1/own-0", "the board backed the bridge", "bridge backed"),
            Pair("r1/own-1", "the board backed the bridge", "bridge backed"),
        ),
        (),
    )
    assert made.fates == Counter(kept=2, unlike=2)


def test_the_check_is_rouge_1(base: Base):
    # 4 common words of 5 and 5: F1 = .8
    at, above = (StreamConfig(sets=1, min_rouge1=least) for least in (0.8, 0.81))
    assert synthesise(base, RECORDS[:1], at, 1, None).fates == Counter(kept=1)
    assert synthesise(base, RECORDS[:1], above, 1, None).fates == Counter(unlike=1)


def test_a_copy_is_dropped(base: Base, monkeypatch):
    monkeypatch.setitem(REPLIES, RECORDS[0].input, f"[{RECORDS[0].input}]")
    assert synthesise(base, RECORDS[:1], StreamConfig(sets=1), 1, None).fates == Counter(copy=1)


def test_responses_are_rewritten_where_that_is_asked_for(base: Base, monkeypatch):
    monkeypatch.setitem(REPLIES, RECORDS[1].input, f"[{RECORDS[1].input} loudly]")
    config = StreamConfig(sets=1, synth_response="generate")
    made = synthesise(base, RECORDS, config, seed=1, system=None)
    assert made.pairs[0] == (Pair("r1/own-0", "the board backed the bridge", "bridge endorsed"),)
    assert made.fates == Counter(kept=1, unreadable=1)


def test_a_record_without_a_response_keeps_none(base: Base):
    tweet = replace(RECORDS[0], response="")
    config = StreamConfig(sets=1, synth_response="generate")
    (made,) = synthesise(base, [tweet], config, seed=1, system=None).pairs
    assert made == (Pair("r1/own-0", "the board backed the bridge", ""),)
