"""Candidates leave a run as a file, and come back from it as they were."""

from __future__ import annotations

import json

import pytest

from conf.errors import DataError
from lamp.records import Pair
from storage import jsonlines
from strategy.augmentation import record_hash
from strategy.candidates import forget, read, replay, save
from strategy.filters import Candidate, Scores
from strategy.progress import LoggedProgress

SCORES = Scores(0.9, 0.8, 0.5, 1.1, float("inf"))
FIRST, SECOND = Pair("1", "a secret text", "t"), Pair("2", "another", "t")
SHARED = {"u": (FIRST, SECOND), "v": (Pair("9", FIRST.input, FIRST.response),)}


def _made(pair: Pair) -> tuple[Candidate, ...]:
    written = Pair(f"{pair.id}/0", f"new {pair.input[:1]}", "t")
    return (
        Candidate(pair.id, written, None, SCORES, writer="writer 1"),
        Candidate(pair.id, None, "cut_off", None, writer="writer 1"),
    )


MADE = {"u": (*_made(FIRST), *_made(SECOND)), "v": _made(SHARED["v"][0])}


class Notes(LoggedProgress):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


@pytest.fixture
def path(tmp_path):
    save(tmp_path / "candidates.jsonl", MADE, SHARED)
    return tmp_path / "candidates.jsonl"


def test_a_replay_gives_the_candidates_of_the_run(path):
    notes = Notes()
    assert replay(path, SHARED, 2, notes) == MADE
    assert notes.notes == []


def test_a_smaller_k_or_share_takes_a_part(path):
    assert replay(path, {"u": (SECOND,)}, 1, Notes()) == {"u": _made(SECOND)[:1]}


def test_a_record_that_two_users_share_stands_there_once_and_never_itself(path):
    rows = list(jsonlines.read(path))
    assert len(rows) == 4
    assert FIRST.input not in path.read_text()


def test_a_record_without_candidates_is_counted_and_named(path):
    notes = Notes()
    other = Pair("7", "unknown", "t")
    found = replay(path, {"u": (FIRST, other)}, 2, notes)
    assert [each.unreadable for each in found["u"]] == [None, "cut_off", *["not_in_file"] * 2]
    assert notes.notes == [
        "candidates.jsonl: shared records with fewer than 2 candidates there: 1 (u/7)"
    ]


def test_users_without_a_reply_are_left_to_the_next_run(tmp_path):
    lost = {"u": (Candidate("1", None, "no_reply", None),)}
    save(tmp_path / "c.jsonl", lost, {"u": (FIRST,)})
    assert (tmp_path / "c.jsonl").read_text() == ""


def test_what_a_withdrawn_record_gave_rise_to_is_forgotten(path):
    forget(path, [record_hash(FIRST)])
    assert {row["record"] for row in jsonlines.read(path)} == {record_hash(SECOND)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"record": None}, "line 2: field 'record': expected str, got nothing"),
        ({"index": "0"}, "line 2: field 'index': expected int, got str"),
        ({"index": -1}, "line 2: field 'index': expected 0 or more, got -1"),
        ({"input": 3}, "line 2: field 'input': expected str, got int"),
        ({"scores": None}, "line 2: field 'scores': expected dict, got nothing"),
        ({"scores": {"entails": 1}}, "line 2: field 'entailed': expected number, got nothing"),
        ({"input": "other", "index": 0}, "line 2: expected one candidate 0 of record"),
    ],
)
def test_a_malformed_line_is_refused_with_its_number(tmp_path, path, change, message):
    row = json.loads(path.read_text().splitlines()[0])
    broken = tmp_path / "broken.jsonl"
    broken.write_text(f"{json.dumps(row)}\n{json.dumps({**row, **change})}\n")
    with pytest.raises(DataError, match=message):
        read(broken)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{\n", "c.jsonl line 1 column 2: expected JSON"),
        (b"\n\n5\n", "c.jsonl line 3: expected one JSON object"),
        (b"[]\n", "line 1: expected one JSON object"),
        (b"\n", "expected candidates, one a line, got none"),
        (b"\xff\n", "expected UTF-8"),
    ],
)
def test_what_is_no_file_of_candidates_is_refused(tmp_path, content, message):
    path = tmp_path / "c.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(
        DataError, match=r"set augmenter.file to the candidates.jsonl of a finished run"
    ):
        read(tmp_path / "c.jsonl")
