"""Broken data files: read as they should be, or an error that says where; never a crash."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.errors import DataError
from lamp import dataset

PREFIX = "Generate a headline for the following article: "
SECRET = "nobody may read this"
NASTY = st.sampled_from(
    [
        "",
        "x" * 200_000,
        "\x00\x07\x1b[31m",
        "half \ud83d a character",
        "\u202e\u2028\ufeff",
        "'; DROP TABLE entries; --",
        "../../etc/passwd",
        "<|im_end|>\n<|im_start|>system",
        "Input: [a], Response: [b]",
        "NaN",
    ]
)
VALUES = st.one_of(
    NASTY,
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=True),
    st.lists(NASTY, max_size=2),
    st.dictionaries(NASTY, st.none(), max_size=2),
)


def good() -> tuple[list[dict], dict]:
    questions = [
        {
            "id": f"q{user}{number}",
            "user_id": f"u{user}",
            "input": PREFIX + f"{SECRET} {user} {number}",
            "profile": [
                {
                    "id": f"i{item}",
                    "text": f"{SECRET} {item}",
                    "title": f"t{item}",
                    "date": f"2011-05-0{item + 1}",
                }
                for item in range(2 + user)
            ],
        }
        for user in range(3)
        for number in range(2)
    ]
    golds = [{"id": question["id"], "output": SECRET} for question in questions]
    return questions, {"task": "LaMP_4", "golds": golds}


def places(value, way=()):
    """Every place in a tree of lists and objects."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, each in inner:
        yield (*way, key)
        if isinstance(each, dict | list):
            yield from places(each, (*way, key))


PLACES = [(number, way) for number, part in enumerate(good()) for way in places(part, ()) if way]
CHANGES = st.tuples(
    st.sampled_from(PLACES), st.sampled_from(["set", "drop", "twice", "more"]), VALUES
)


def change(files, place, how, value):
    number, way = place
    inner = files[number]
    try:
        for step in way[:-1]:
            inner = inner[step]
        if how == "set":
            inner[way[-1]] = value
        elif how == "drop":
            del inner[way[-1]]
        elif how == "twice" and isinstance(inner, list):
            inner.append(copy.deepcopy(inner[way[-1]]))
        elif isinstance(inner, dict):
            inner["an extra field"] = value
    except (KeyError, IndexError, TypeError):
        pass  # an earlier change took the place away


def load(config, questions: bytes, outputs: bytes):
    """Load two files; returns the data, or the error's message."""
    with TemporaryDirectory() as name:
        folder = Path(name) / "LaMP_4"
        folder.mkdir()
        (folder / "dev_questions.json").write_bytes(questions)
        (folder / "dev_outputs.json").write_bytes(outputs)
        try:
            return dataset.load(config(data=name)), ""
        except DataError as error:
            return None, str(error)


def check(data, message: str) -> None:
    if data is not None:
        assert data.targets
        for user in (*data.targets, *data.public):
            assert user.pairs
            assert len({pair.id for pair in user.pairs}) == len(user.pairs)
            json.dumps([user.user_id, *(pair.input for pair in user.pairs)]).encode()
        return
    assert re.search(r"dev_(questions|outputs)\.json|data folder|users|split", message), message
    assert SECRET not in message
    assert len(message) < 2000 or "x" * 200_000 in message


def dump(value) -> bytes:
    return json.dumps(value).encode()


def fuzz_fields(config, changes) -> None:
    files = good()
    for place, how, value in changes:
        change(files, place, how, value)
    check(*load(config, *map(dump, files)))


def fuzz_bytes(config, which, cuts, noise) -> None:
    parts = [bytearray(dump(part)) for part in good()]
    for cut, byte in zip(cuts, noise, strict=False):
        parts[which][cut % len(parts[which])] = byte
    if len(cuts) > len(noise):
        del parts[which][cuts[-1] % len(parts[which]) :]
    check(*load(config, *map(bytes, parts)))


BYTES = (
    st.integers(0, 1),
    st.lists(st.integers(0, 5000), min_size=1, max_size=6),
    st.binary(max_size=6),
)


@given(changes=st.lists(CHANGES, min_size=1, max_size=3))
@settings(max_examples=120)
def test_changed_fields(make_config_once, changes):
    fuzz_fields(make_config_once, changes)


@given(which=BYTES[0], cuts=BYTES[1], noise=BYTES[2])
@settings(max_examples=80)
def test_changed_bytes(make_config_once, which, cuts, noise):
    fuzz_bytes(make_config_once, which, cuts, noise)


@pytest.mark.slow
@given(changes=st.lists(CHANGES, min_size=1, max_size=5))
@settings(max_examples=700)
def test_many_changed_fields(make_config_once, changes):
    fuzz_fields(make_config_once, changes)


@pytest.mark.slow
@given(which=BYTES[0], cuts=BYTES[1], noise=BYTES[2])
@settings(max_examples=300)
def test_many_changed_bytes(make_config_once, which, cuts, noise):
    fuzz_bytes(make_config_once, which, cuts, noise)


@pytest.fixture(scope="module")
def make_config_once(tmp_path_factory):
    """Make the configuration of two target users; not a fixture per example."""
    from dataclasses import replace

    from conf.compose import compose

    composed = compose(["task=lamp_4", "users=2", "model=qwen2.5"])
    paths = replace(composed.paths, cache=str(tmp_path_factory.mktemp("cache")))
    return lambda data: replace(composed, data=data, paths=paths)


def test_a_hundred_thousand_items_are_read(make_config_once):
    questions, outputs = good()
    questions[0]["profile"] = [
        {"id": str(number), "text": "a text", "title": "t", "date": "2011-05-01"}
        for number in range(100_000)
    ]
    data, message = load(make_config_once, dump(questions), dump(outputs))
    assert message == ""
    assert max(len(user.pairs) for user in data.targets) == 100_000


def test_a_user_id_that_is_a_path_stays_a_name(make_config_once, tmp_path):
    from clients import folder as device_folder
    from clients.folder import Policy

    questions, outputs = good()
    for question in questions[:2]:
        question["user_id"] = "../../x"
    data, _ = load(make_config_once, dump(questions), dump(outputs))
    root = tmp_path / "devices"
    for user in (*data.targets, *data.public):
        made = device_folder.create(root, user, Policy(1.0), b"s" * 32)
        assert made.parent == root
    assert {path.name for path in tmp_path.iterdir()} == {"devices"}
