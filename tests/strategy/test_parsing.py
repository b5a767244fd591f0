"""Replies are read where they can be; every other one has a reason."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf.schema import TaskConfig
from lamp.tasks import task
from strategy.parsing import Parsed, parse_reply

HEADLINE = task(TaskConfig(name="lamp_4", max_new_tokens=8))
TAGGING = task(TaskConfig(name="lamp_2", max_new_tokens=8))
TWEET = task(TaskConfig(name="lamp_7", max_new_tokens=8))


@pytest.mark.parametrize(
    "reply",
    [
        "Input: [a b], Response: [c]",
        "Input: [a b], Response: [c].",
        "Sure! Here it is:\nInput: a b\nResponse: c",
        'input: "a b"; response: "c"',
        "Input: [a b]\n\nResponse: [c]\n",
        "INPUT : [ a b ] , RESPONSE : [ c ] .",
    ],
)
def test_usual_ways_to_write_a_pair_are_read(reply):
    assert parse_reply(HEADLINE, reply) == Parsed(input="a b", response="c")


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("", "no_input"),
        ("I cannot help with that.", "no_input"),
        ("Input: [], Response: [c]", "empty_input"),
        ("Input: [a b]", "no_response"),
        ("Input: [a b], Response: []", "no_response"),
    ],
)
def test_what_cannot_be_read_has_a_reason(reply, reason):
    assert parse_reply(HEADLINE, reply).reason == reason


@pytest.mark.parametrize("written", ["comedy", "Comedy", "comedy.", "[comedy]"])
def test_a_label_is_recognised_whatever_its_case_and_full_stop(written):
    assert parse_reply(TAGGING, f"Input: [a], Response: {written}").response == "comedy"


def test_a_label_outside_the_set_is_rejected():
    reply = "Input: [a], Response: [western]"
    assert parse_reply(TAGGING, reply).reason == "label_outside_set"


@pytest.mark.parametrize("reply", ["Input: [a b], Response: []", "Input: [a b]"])
def test_a_plain_text_task_needs_no_response(reply):
    assert parse_reply(TWEET, reply) == Parsed(input="a b")


def test_brackets_inside_the_text_stay():
    assert parse_reply(HEADLINE, "Input: [see [1] there], Response: [c]").input == "see [1] there"


@given(st.text())
def test_no_reply_crashes_and_none_passes_without_input(reply):
    for each in (HEADLINE, TAGGING, TWEET):
        parsed = parse_reply(each, f"Input: {reply}")
        assert (parsed.reason is None) == bool(parsed.input)
