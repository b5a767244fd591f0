"""Sharing by the DAC'24 scores: an order by the weakest score, made once and kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clients import outbound, share_order
from clients.base import load
from clients.dac24 import usefulness
from clients.dac24.buffer import BufferEntry
from clients.folder import Device
from clients.policy import Policy
from conf.compose import compose
from conf.errors import ProtocolError
from conf.schema import StreamConfig
from lamp.dialogue.lexicons import Lexicon
from lamp.records import Pair, UserHistory
from protocol.recipe import Stream
from protocol.settings import settings_of

PAIRS = tuple(Pair(f"p{n}", f"text {n} on {'fever ' * n}", "answer") for n in range(6))


def record(name: str, entropy: float, domain_score: float, angle: float) -> BufferEntry:
    vector = np.array([np.cos(angle), np.sin(angle)], dtype=np.float32)
    return BufferEntry(Pair(name, name, ""), "d", vector, entropy, domain_score)


def test_a_record_counts_as_much_as_its_weakest_score():
    records = [
        record("strong", 0.8, 0.8, -2.0),
        record("one-sided", 0.9, 0.1, 0.0),  # the least in its domain's words
        record("middling", 0.5, 0.5, 2.0),
        record("weak", 0.1, 0.2, 0.1),
    ]
    # dissimilarities by hand: 1.52, .95, 1.46, .94; ranks of the weakest score: 2.5, .5, 1.5, .5
    found = usefulness.places(records)
    assert found == {"strong": 0, "middling": 1, "one-sided": 2, "weak": 2}


def test_records_alike_in_all_scores_have_one_place():
    assert set(usefulness.places([record(str(n), 0.5, 0.5, 1.0) for n in range(3)]).values()) == {0}


def device(folder: Path) -> Device:
    policy = Policy(0.5, select="dac24")
    return Device(folder, UserHistory("ana", (), PAIRS, ()), policy, b"s" * 32)


@pytest.fixture
def scored(tmp_path, qwen2_folder):
    settings = settings_of(compose(["model=qwen2.5", "qlora.compute_dtype=float32"]))
    base = load(qwen2_folder, settings.qlora, 1)

    def keep(*words: str) -> Device:
        lexicons = (Lexicon("d", words),)
        stream = Stream(settings=StreamConfig(), lexicons=lexicons)
        usefulness.keep_order(device(tmp_path), base, stream, settings)
        return device(tmp_path)

    return keep


def test_shares_are_nested_and_a_later_request_with_other_words_changes_nothing(scored):
    own = scored("fever")
    order = [pair.id for pair in share_order.sharing_order(own)]
    granted = outbound.grant(own, [0.2, 0.5, 1.0])
    assert [pair.id for pair in granted.pairs] == order[:3]  # the policy's half of six
    assert granted.counts == (1, 3, 3)
    again = scored("text", "answer", "on")
    assert [pair.id for pair in share_order.sharing_order(again)] == order


def test_the_order_is_by_place_and_then_by_the_secret(scored):
    own = scored("fever")
    places = json.loads((own.folder / usefulness.ORDER).read_text())
    ordered = [places[pair.id] for pair in share_order.sharing_order(own)]
    assert ordered == sorted(ordered)
    other = replace(own, secret=b"t" * 32)
    assert [places[pair.id] for pair in share_order.sharing_order(other)] == ordered


def test_without_scores_nothing_is_shared(tmp_path):
    with pytest.raises(ProtocolError, match="takes a base model to score by"):
        outbound.grant(device(tmp_path), [0.5])
