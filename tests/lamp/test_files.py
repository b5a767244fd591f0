from __future__ import annotations

import copy
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.errors import DataError
from lamp.files import (
    Outputs,
    Question,
    read_outputs,
    read_questions,
    write_outputs,
    write_predictions,
    write_questions,
)
from lamp.records import ProfileItem
from lamp.tasks import TASKS

SECRET = "a text of the user"
QUESTIONS = [
    {
        "id": "q1",
        "user_id": "u1",
        "input": SECRET,
        "profile": [
            {"id": "i1", "text": SECRET, "title": "t", "date": "2011-05-09"},
            {"id": "i2", "text": SECRET, "title": "t", "date": 2012},
        ],
    },
    {"id": "q2", "input": SECRET, "profile": [{"id": "i1", "text": SECRET, "title": "t"}]},
]
OUTPUTS = {"task": "LaMP_4", "golds": [{"id": "q1", "output": "x"}, {"id": "q2", "output": "y"}]}
MISSING = object()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "LaMP_4").mkdir()
    return tmp_path / "LaMP_4"


def write(folder: Path, name: str, content: object) -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def changed(content, place, value):
    """Return a copy with the value at a place such as (0, "profile", 1, "text") replaced."""
    content = copy.deepcopy(content)
    *way, last = place
    inner = content
    for step in way:
        inner = inner[step]
    if value is MISSING:
        del inner[last]
    else:
        inner[last] = value
    return content


def test_questions_are_read_with_dates_as_strings(folder):
    first, second = read_questions(write(folder, "dev_questions.json", QUESTIONS), ("text",))
    assert first.id == "q1"
    assert first.user_id == "u1"
    assert first.profile == (
        ProfileItem("i1", {"text": SECRET, "title": "t"}, "2011-05-09"),
        ProfileItem("i2", {"text": SECRET, "title": "t"}, "2012"),
    )
    assert second.user_id is None
    assert second.profile[0].date is None


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ((0, "id"), MISSING, "question number 1, field 'id': expected a string, got nothing; add"),
        ((0, "id"), 7, "question number 1, field 'id': expected a string, got a number; write it"),
        ((0, "id"), "", "question number 1, field 'id': expected an id, got an empty string"),
        ((1, "id"), "q1", "question 'q1', field 'id': expected a unique id, it stands there twice"),
        ((1, "input"), MISSING, "question 'q2', field 'input': expected a string, got nothing"),
        ((1, "input"), ["x"], "question 'q2', field 'input': expected a string, got a list"),
        ((0, "user_id"), None, "question 'q1', field 'user_id': expected a string, got null"),
        ((1, "profile"), MISSING, "question 'q2', field 'profile': expected a list, got nothing"),
        ((1, "profile"), [], "question 'q2', field 'profile': expected at least one item"),
        ((1, "profile"), {}, "question 'q2', field 'profile': expected a list, got an object"),
        ((1, "profile", 0), "x", "question 'q2', profile item number 1: expected an object"),
        (
            (0, "profile", 1, "id"),
            "i1",
            "question 'q1', profile item 'i1', field 'id': expected a unique id",
        ),
        (
            (0, "profile", 1, "title"),
            MISSING,
            "question 'q1', profile item 'i2', field 'title': expected a string, got nothing; add",
        ),
        (
            (0, "profile", 1, "title"),
            None,
            "question 'q1', profile item 'i2', field 'title': expected a string, got null; add",
        ),
        (
            (0, "profile", 1, "extra"),
            2.5,
            "question 'q1', profile item 'i2', field 'extra': expected a string, got a number",
        ),
        (
            (0, "profile", 1, "date"),
            True,
            "question 'q1', profile item 'i2', field 'date': expected a string, got true or false",
        ),
        (
            (0, "profile", 1, "text"),
            "a \ud800 b",
            "question 'q1', profile item 'i2', field 'text': expected Unicode text, got a lone "
            "surrogate at character 2",
        ),
        ((1,), 3, "question number 2: expected an object, got a number"),
    ],
)
def test_a_bad_question_names_file_record_field_and_remedy(folder, place, value, message):
    path = write(folder, "dev_questions.json", changed(QUESTIONS, place, value))
    with pytest.raises(DataError) as error:
        read_questions(path, ("text", "title"))
    assert str(error.value).startswith(f"LaMP_4/dev_questions.json, {message}")
    assert "; " in str(error.value)
    assert SECRET not in str(error.value)
    assert str(folder) not in str(error.value)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("task",), MISSING, ", field 'task': expected a string, got nothing"),
        (("golds",), MISSING, ", field 'golds': expected a list, got nothing"),
        (("golds", 0), None, ", gold number 1: expected an object, got null"),
        (("golds", 1, "id"), "q1", ", gold 'q1', field 'id': expected a unique id"),
        (("golds", 1, "output"), 5, ", gold 'q2', field 'output': expected a string, got a number"),
        (("golds", 1, "output"), "\udfff", ", gold 'q2', field 'output': expected Unicode text"),
    ],
)
def test_a_bad_gold_names_file_record_field_and_remedy(folder, place, value, message):
    path = write(folder, "dev_outputs.json", changed(OUTPUTS, place, value))
    with pytest.raises(DataError) as error:
        read_outputs(path)
    assert str(error.value).startswith(f"LaMP_4/dev_outputs.json{message}")


@pytest.mark.parametrize("read", [read_questions, read_outputs])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"id": "q1",', r"line 1 column 14: expected JSON, got: .*; the file is broken"),
        ("", r"line 1 column 1: expected JSON"),
        ("[" * 200_000, r"expected JSON in UTF-8, got RecursionError"),
        ("3", r": expected (a list|an object), got a number; the official form is"),
    ],
)
def test_a_broken_file_is_named(folder, read, content, message):
    with pytest.raises(DataError, match=rf"LaMP_4/x\.json.*{message}"):
        read(write(folder, "x.json", content))


def test_a_missing_file_says_how_to_get_it(folder):
    with pytest.raises(DataError, match=r"LaMP_4/dev_questions\.json.*python -m sim download"):
        read_questions(folder / "dev_questions.json")


def test_a_file_in_another_encoding_is_refused(folder):
    (folder / "x.json").write_bytes('["é"]'.encode("latin-1"))
    with pytest.raises(DataError, match="expected JSON in UTF-8, got UnicodeDecodeError"):
        read_questions(folder / "x.json")


def test_a_folder_in_the_place_of_a_file_is_refused(folder):
    with pytest.raises(DataError, match="cannot be read"):
        read_questions(folder)


def test_an_empty_list_is_refused(folder):
    with pytest.raises(DataError, match="expected questions, got an empty list"):
        read_questions(write(folder, "x.json", "[]"))


def test_a_byte_order_mark_is_no_obstacle(folder):
    (folder / "x.json").write_text(json.dumps(QUESTIONS), encoding="utf-8-sig")
    assert len(read_questions(folder / "x.json")) == 2


texts = st.text(max_size=20)
ids = st.text(min_size=1, max_size=5)
items = st.builds(
    ProfileItem,
    id=ids,
    fields=st.dictionaries(
        texts.filter(lambda name: name not in ("id", "date")), texts, max_size=3
    ),
    date=st.none() | texts,
)
questions = st.lists(
    st.builds(
        Question,
        id=ids,
        input=texts,
        profile=st.lists(items, min_size=1, max_size=3, unique_by=lambda item: item.id).map(tuple),
        user_id=st.none() | ids,
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda question: question.id,
)


@given(questions=questions)
@settings(max_examples=25)
def test_written_questions_are_read_as_they_were(questions):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "dev_questions.json"
        write_questions(path, questions)
        assert read_questions(path) == tuple(questions)


@given(golds=st.dictionaries(ids, texts, max_size=4))
@settings(max_examples=25)
def test_written_outputs_are_read_as_they_were(golds):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "dev_outputs.json"
        write_outputs(path, TASKS["lamp_7"], golds)
        assert read_outputs(path) == Outputs("LaMP_7", golds)


def test_predictions_have_the_form_of_lamps_evaluation(folder):
    path = folder / "predictions.json"
    write_predictions(path, TASKS["lamp_2"], {"q1": " comedy\n", "q2": "half \ud83d a smile"})
    assert json.loads(path.read_text(encoding="utf-8")) == {
        "task": "LaMP_2",
        "golds": [{"id": "q1", "output": " comedy\n"}, {"id": "q2", "output": "half ? a smile"}],
    }
    assert read_outputs(path).golds["q1"] == " comedy\n"
