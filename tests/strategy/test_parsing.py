"""Replies are read where they can be; every other one has a reason."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamp.tasks import TASKS
from storage import jsonlines
from strategy.parsing import Parsed, parse_reply
from strategy.text_alone import parse_text

HEADLINE, TAGGING, STARS, TWEET = (TASKS[f"lamp_{number}"] for number in (4, 2, 3, 7))
DIALOGUE = TASKS["dialogue"]
RECORDED = sorted((Path(__file__).parent / "replies").glob("*.jsonl"))
A_B = Parsed(input="a b", response="c")


def _read(row) -> Parsed:
    reply, complete = row.get("prefill", "") + row["reply"], row["finish"] == "stop"
    if row.get("prompt") == "paraphrase":
        return parse_text(reply, complete)
    return parse_reply(TASKS[row["task"]], reply, complete)


def _is_right(row, parsed: Parsed) -> bool:
    if parsed.reason is not None:
        rejected = row["outcome"] == "rejected" or row.get("also_rejected", False)
        return rejected and row.get("reason", parsed.reason) == parsed.reason
    expected = (row["y"], *row.get("y_also", ()))
    return row["outcome"] == "pair" and parsed.input == row["x"] and parsed.response in expected


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_replies_of_real_models_are_read_as_a_person_reads_them(path):
    rows = list(jsonlines.read(path))
    assert len(rows) > 50
    wrong = [(row["reply"], _read(row)) for row in rows if not _is_right(row, _read(row))]
    assert wrong == []


def test_the_shared_cases_are_read_as_listed(shared_folder):
    rows = list(jsonlines.read(shared_folder / "cases" / "replies.jsonl"))
    wrong = [(row["reply"], _read(row)) for row in rows if not _is_right(row, _read(row))]
    assert rows
    assert wrong == []


@pytest.mark.parametrize(
    "reply",
    [
        "Input: [a b], Response: [c]",
        "Input: [a b], Response: [c].",
        "Sure! Here it is:\nInput: a b\nResponse: c",
        'input: "a b"; response: "c"',
        "Input: [a b]\n\nResponse: [c]\n",
        "INPUT : [ a b ] , RESPONSE : [ c ] .",
        "Input:\r\n[a b]\r\nResponse:\r\n[c]\r\n",
        "### Input\na b\n\n### Response\nc",
        "**Input**\na b\n\n**Response**\nc",
        "- **Input:** a b\n- **Response:** c",
        "> Input: a b\n> Response: c",
        "Input 1: [a b]\nResponse 1: [c]\n\nInput 2: [d]\nResponse 2: [e]",
        "Input (paraphrased): [a b]\nResponse (unchanged): [c]",
        "New Input: a b\nNew Response: c",
        "Input / 输入: [a b]\nResponse / 回应: [c]",
        "Input：【a b】，Response：【c】",
        "Input: “a b”, Response: “c”",
        "Input: «a b»\nOutput: «c»",
        "Input: `a b`\nResponse: `c`",
        "Input: [a b] -> Response: [c]",
        "Input: [a b] and Response: [c]",
        "Input: [[a b]], Response: [[c]]",
        "Input: <a b>, Response: <c>",
        "Input: a b\nResponse: c<|endoftext|>Input: d",
        "<b>Input:</b> a b<br>\n<b>Response:</b> c<br/>",
        '"Input: a b, Response: c"',
        "> **Input:** [a b]\n>\n> **Response:** [c]",
        "Pair 1:\nInput: [a b]\nResponse: [c]\n\nPair 2:\nInput: [d]\nResponse: [e]",
        "Input: {a b}, Response: {c}",
        "Input: (a b), Response: (c)",
        "[Input: a b, Response: c]",
        "[Input: [a b], Response: [c]]",
        "**Input: a b**\n**Response: c**",
        "\u200b\u200fInput: [a b]\u200e, Response: [c]\ufeff",
        "| Input | Response |\n|---|---|\n| a b | c |\n| d | e |",
        "<input>a b</input>\n<response>c</response>",
        '[{"Input": "a b", "Response": "c"}, {"Input": "d", "Response": "e"}]',
        '{"pair": {"INPUT": "a b", "Output": "c"}}',
        '{"input": ["a b"], "response": ["c"]}',
        "{'Input': 'a b', 'Response': 'c'}",
        'Here is the JSON:\n```json\n{\n  "Input": "a b",\n  "Response": "c",\n}\n```',
        "<think>\nInput: [x], Response: [y]\n</think>\n\nInput: [a b], Response: [c]",
        "so I write it now</think>Input: [a b], Response: [c]",
        "Input: a b, Response: c, Input: d, Response: e",
        "Input: [a b], Response: [c] I kept the style.",
        "Input: [a b]\nResponse: c\nI kept the style.",
        "Input: a b\nResponse: c\n---\nInput: d\nResponse: e",
        "Input: [a b], Response: [c]\nResponse: [d]",
        "Input: [], Response: [d]\nInput: [a b], Response: [c]",
    ],
)
def test_usual_ways_to_write_a_pair_are_read(reply):
    assert parse_reply(HEADLINE, reply) == A_B


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("", "no_input"),
        ("I cannot help with that.", "no_input"),
        ("<think>Input: [a], Response: [b]", "no_input"),
        ("Input: [], Response: [c]", "empty_input"),
        ("Input: [...], Response: [...]", "empty_input"),
        ("Input: [a b]", "no_response"),
        ("Input: [a b], Response: []", "no_response"),
        ("Input: [a b\nResponse: [c]", "unclosed"),
        ("Input: [a b], Response: [c", "unclosed"),
        ("Input: a b. Response: none. Response: c", "unclear"),
        ("Input: [a] b, Response: [c]", "unclear"),
        ("Input: [a], Response: c (Note: kept short)", "unclear"),
        ("Input: [a], Response: c. Explanation: kept short", "unclear"),
        ("Input: a\n\nHere is the response:\nResponse: c", "unclear"),
        ("Input: [input], Response: [response]", "empty_input"),
        ("Input: [a], Response: [Your response here]", "no_response"),
        ("Input 1: a\nInput 2: b\nResponse 1: c\nResponse 2: d", "no_response"),
        ('{"Input": "a", "Response": {"text": "c"}}', "no_response"),
    ],
)
def test_what_cannot_be_read_has_a_reason(reply, reason):
    assert parse_reply(HEADLINE, reply).reason == reason


@pytest.mark.parametrize(
    "reply",
    [
        "Input: [a b], Response: [c",
        "Input: [a b], Response: c",
        "Input: [a b], Response:",
        "Input: [a b],",
        "Input: a b",
        'Input: "a b", Response: "c',
        '{"Input": "a b", "Response": "c',
        "<think>Input: [a b], Response: [c]",
    ],
)
def test_a_pair_that_the_limit_of_the_reply_cut_is_no_pair(reply):
    assert parse_reply(HEADLINE, reply, complete=False).reason == "cut_off"


@pytest.mark.parametrize(
    "reply",
    [
        "Input: [a b], Response: [c]",
        "Input: a b\nResponse: c\nInput: d",
        '{"Input": "a b", "Response": "c"',
        "| Input | Response |\n|---|---|\n| a b | c |\n| d",
    ],
)
def test_what_is_cut_behind_the_pair_does_not_matter(reply):
    assert parse_reply(HEADLINE, reply, complete=False) == A_B


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        ("Input: [see [1] there], Response: [c]", "see [1] there"),
        ("Input: [VIDEO] A cat fell.\nResponse: c", "[VIDEO] A cat fell."),
        ("Input: a\n\nb\n\nResponse: c", "a\n\nb"),
        ("Input: [a\n\n- b], Response: [c]", "a\n\n- b"),
        ("Input: [Its output: 40 MW.], Response: [c]", "Its output: 40 MW."),
        ("Input: Its output: 40 MW.\nResponse: c", "Its output: 40 MW."),
        ("Input: [می‌خواهم 👩‍🚒], Response: [c]", "می‌خواهم 👩‍🚒"),
        ("Input: [un « mot »], Response: [c]", "un « mot »"),
        ("Input: [Fish &amp; chips], Response: [c]", "Fish &amp; chips"),
        ("Input: ['Tis \"so\" and 'so'], Response: [c]", "'Tis \"so\" and 'so'"),
        ('{"Input": "a \\"b\\"\\nc\\u00e9", "Response": "c"}', 'a "b"\ncé'),
    ],
)
def test_a_text_is_taken_whole(reply, text):
    assert parse_reply(HEADLINE, reply) == Parsed(input=text, response="c")


@pytest.mark.parametrize("written", ["comedy", "Comedy", "comedy.", "[comedy]", "**Comedy**"])
def test_a_label_is_recognised_whatever_its_case_and_full_stop(written):
    assert parse_reply(TAGGING, f"Input: [a], Response: {written}").response == "comedy"


@pytest.mark.parametrize("written", ["[western]", "[comedy, action]", "comedy (or action)"])
def test_a_label_outside_the_set_is_rejected(written):
    reply = f"Input: [a], Response: {written}"
    assert parse_reply(TAGGING, reply).reason == "label_outside_set"


def test_stars_may_be_a_number_of_json():
    assert parse_reply(STARS, '{"Input": "a", "Response": 4}').response == "4"


@pytest.mark.parametrize(
    "reply", ["Input: [a b], Response: []", "Input: [a b]", "Input: a b\n\nNote: kept short."]
)
def test_a_plain_text_task_needs_no_response(reply):
    assert parse_reply(TWEET, reply) == Parsed(input="a b")


def test_where_a_longer_text_ends_is_not_guessed():
    assert parse_reply(TWEET, "Input: a b\n\nc d").reason == "unclear"
    assert parse_reply(DIALOGUE, "Input: a b\nResponse: c\n\nd").reason == "unclear"
    assert parse_reply(DIALOGUE, "Input: [a b]\nResponse: [c\n\nd]").response == "c\n\nd"


@pytest.mark.parametrize(
    "reply",
    [
        "a b",
        "[a b]",
        '"a b"',
        "The Paraphrased Text: a b",
        "Here is the paraphrased text:\n\na b",
        "Sure! Here's a rewritten version:\n**a b**\n\nI kept the meaning.",
        "1. a b\n2. c d",
        "Paraphrase 1: a b\n\nParaphrase 2: c d",
        "<think>hm</think>a b",
        "Input: [a b], Response: [c]",
    ],
)
def test_a_text_alone_is_read_without_what_announces_it(reply):
    assert parse_text(reply) == Parsed(input="a b")


@pytest.mark.parametrize(
    ("reply", "complete", "reason"),
    [
        ("", True, "empty_input"),
        ("a b", False, "cut_off"),
        ("[a b", True, "unclosed"),
        ("a b\n\nc d", True, "unclear"),
        ('{"paraphrase": "a b"}', True, "unclear"),
        ("Here is the paraphrase:\n\n", True, "empty_input"),
    ],
)
def test_a_text_alone_that_is_not_clear_is_rejected(reply, complete, reason):
    assert parse_text(reply, complete).reason == reason


_PIECES = st.sampled_from(
    ["Input: ", "Response: ", "[", "]", "{", '"', "'", "\n", "**", "Output:", "<think>", "|", "```"]
)


@given(st.lists(st.one_of(st.text(), _PIECES)).map("".join), st.booleans())
def test_no_reply_crashes_and_none_passes_without_input(reply, complete):
    for task in TASKS.values():
        for parsed in (parse_reply(task, f"Input: {reply}", complete), parse_text(reply, complete)):
            assert (parsed.reason is None) == bool(parsed.input)


@given(st.text(), st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20))
def test_what_trails_a_pair_in_brackets_changes_nothing(talk, more):
    reply = "Input: [a b], Response: [c]\n"
    assert parse_reply(HEADLINE, reply + talk + more) == A_B


@pytest.mark.parametrize(
    "unit",
    [
        "[", "Input: [", "input: ", "\nInput: a", "Response: ", "\n", " ", "*", '"', "{", "|",
        '{"input":', "| input |\n|---|\n", "<input>", "<think>", "the text:\n", "input(((", "```\n",
    ],
)  # fmt: skip
def test_a_hostile_reply_of_100_kilobytes_is_read_at_once(unit):
    reply = unit * (100_000 // len(unit))
    started = time.process_time()
    parse_reply(HEADLINE, f"Input: a\n{reply}", complete=False)
    parse_text(reply)
    assert time.process_time() - started < 0.5  # some 0.05 s; what backtracks takes minutes


def test_recordings_are_what_their_readme_says():
    rows = [row for path in RECORDED for row in jsonlines.read(path)]
    assert len(rows) >= 100
    assert all(json.dumps(row) for row in rows)
    assert {row["outcome"] for row in rows} == {"pair", "rejected"}
