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
    Questions,
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
    {
        "id": "q3",
        "input": SECRET,
        "profile": [{"id": f"i{n}", "text": SECRET, "title": "t"} for n in range(2)],
    },
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
    read = read_questions(write(folder, "dev_questions.json", QUESTIONS), ("text",))
    first, second, _ = read.questions
    assert first.id == "q1"
    assert first.user_id == "u1"
    assert first.profile == (
        ProfileItem("i1", {"text": SECRET, "title": "t"}, "2011-05-09"),
        ProfileItem("i2", {"text": SECRET, "title": "t"}, "2012"),
    )
    assert second.user_id is None
    assert second.profile[0].date is None
    assert read.left_out == ()


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ((0, "id"), MISSING, "question number 1, field 'id': expected a string, got nothing; add"),
        ((0, "id"), True, "question number 1, field 'id': expected a string, got true or false (t"),
        ((0, "id"), "", "question number 1, field 'id': expected an id, got an empty string"),
        ((1, "input"), MISSING, "question 'q2', field 'input': expected a string, got nothing"),
        ((1, "input"), ["x"], "question 'q2', field 'input': expected a string, got a list"),
        ((0, "user_id"), "", "question 'q1', field 'user_id': expected an id, got an empty string"),
        ((1, "profile"), MISSING, "question 'q2', field 'profile': expected a list, got nothing"),
        ((1, "profile"), [], "question 'q2', field 'profile': expected at least one item"),
        ((1, "profile"), {}, "question 'q2', field 'profile': expected a list, got an object"),
        ((0, "profile", 1), "x", "question 'q1', profile item number 2: expected an object"),
        (
            (0, "profile", 1, "id"),
            "i1",
            "question 'q1', profile item 'i1', field 'id': expected a unique id, item number 2 "
            "repeats that of item number 1",
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
            (0, "profile", 1, "title"),
            " ",
            "question 'q1', profile item 'i2', field 'title': expected a text, got blank; add",
        ),
        (
            (0, "profile", 1, "extra"),
            2.5,
            "question 'q1', profile item 'i2', field 'extra': expected a string, got a number (2.5",
        ),
        (
            (0, "profile", 1, "date"),
            True,
            "question 'q1', profile item 'i2', field 'date': expected a string, got true or false",
        ),
        ((1,), 3, "question number 2: expected an object, got a number"),
        ((1,), {"a": 1}, "question number 2, field 'id': expected a string, got nothing"),
    ],
)
def test_a_malformed_record_is_left_out_with_place_and_remedy(folder, place, value, message):
    path = write(folder, "dev_questions.json", changed(QUESTIONS, place, value))
    read = read_questions(path, ("text", "title"))
    (problem,) = read.left_out
    assert problem.startswith(f"LaMP_4/dev_questions.json, {message}")
    assert "; " in problem
    assert SECRET not in problem
    assert str(folder) not in problem
    assert sum(len(question.profile) for question in read.questions) < 5


@pytest.mark.parametrize("place", [(0, "profile", 0), (0, "profile", 1), (2, "profile", 1)])
def test_mostly_malformed_items_are_refused(folder, place):
    content = changed(changed(QUESTIONS, place, 3), (1, "profile", 0, "text"), None)
    content = changed(content, (2, "profile", 0, "text"), [])
    with pytest.raises(DataError, match=r"3 of the 5 profile items of LaMP_4/dev_q.* malformed"):
        read_questions(write(folder, "dev_questions.json", content), ("text", "title"))


def test_mostly_malformed_questions_are_refused(folder):
    content = changed(changed(QUESTIONS, (0, "input"), 3), (1, "input"), None)
    with pytest.raises(DataError, match=r"question 'q1', field 'input'.*2 of the 3 questions"):
        read_questions(write(folder, "dev_questions.json", content))


@pytest.mark.parametrize("absent", [None, float("nan"), ""])
def test_null_nan_and_blank_are_as_good_as_no_date(folder, absent):
    content = changed(QUESTIONS, (0, "profile", 0, "date"), absent)
    content = changed(content, (0, "user_id"), None)
    read = read_questions(write(folder, "dev_questions.json", content), ("text", "title"))
    assert read.left_out == ()
    assert read.questions[0].profile[0].date is None
    assert read.questions[0].user_id is None


def test_numbers_are_ids_and_where_asked_for_labels(folder):
    content = changed(changed(QUESTIONS, (0, "id"), 7), (0, "user_id"), 8)
    content = changed(content, (0, "profile", 0, "id"), 9)
    content = changed(content, (0, "profile", 0, "title"), 4)
    path = write(folder, "dev_questions.json", content)
    first = read_questions(path, ("text", "title"), numeric=("title",)).questions[0]
    assert (first.id, first.user_id, first.profile[0].id) == ("7", "8", "9")
    assert first.profile[0].fields["title"] == "4"


def test_half_a_character_becomes_a_replacement_character(folder):
    content = changed(QUESTIONS, (0, "profile", 0, "text"), "a \ud800 b \ud83d\ude00")
    first = read_questions(write(folder, "dev_questions.json", content)).questions[0]
    assert first.profile[0].fields["text"] == "a \ufffd b \U0001f600"


def test_two_questions_of_one_id_are_refused_with_both_places(folder):
    path = write(folder, "dev_questions.json", changed(QUESTIONS, (2, "id"), "q1"))
    with pytest.raises(
        DataError, match=r"'q1', field 'id'.*number 3 repeats that of question numb"
    ):
        read_questions(path)


def test_json_lines_are_read(folder):
    lines = "\n".join(json.dumps(question) for question in QUESTIONS)
    read = read_questions(write(folder, "dev_questions.json", lines), ("text", "title"))
    assert [question.id for question in read.questions] == ["q1", "q2", "q3"]


def test_a_wrapped_list_is_refused_with_what_it_is_wrapped_in(folder):
    with pytest.raises(DataError, match="expected a list, got an object with the keys 'data'"):
        read_questions(write(folder, "x.json", {"data": QUESTIONS}))


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("task",), MISSING, ", field 'task': expected a string, got nothing"),
        (("golds",), MISSING, ", field 'golds': expected a list, got nothing"),
        (("golds", 1, "id"), "q1", ", gold 'q1', field 'id': expected a unique id"),
    ],
)
def test_an_output_file_of_another_form_is_refused(folder, place, value, message):
    path = write(folder, "dev_outputs.json", changed(OUTPUTS, place, value))
    with pytest.raises(DataError) as error:
        read_outputs(path)
    assert str(error.value).startswith(f"LaMP_4/dev_outputs.json{message}")


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("golds", 1), None, ", gold number 2: expected an object, got null"),
        (("golds", 1, "output"), 5, ", gold 'q2', field 'output': expected a string, got a number"),
    ],
)
def test_a_malformed_gold_is_left_out_with_its_place(folder, place, value, message):
    outputs = read_outputs(write(folder, "dev_outputs.json", changed(OUTPUTS, place, value)))
    assert outputs.golds == {"q1": "x"}
    (problem,) = outputs.left_out
    assert problem.startswith(f"LaMP_4/dev_outputs.json{message}")


@pytest.mark.parametrize("read", [read_questions, read_outputs])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"id": "q1",', r"line 1 column 14: expected JSON, got: .*; the file is broken"),
        ("", r"line 1 column 1: expected JSON"),
        ("[" * 200_000, r"expected JSON, got lists in lists too deep"),
        ("[" + "9" * 5000 + "]", r"got one of thousands of digits"),
        ("3", r": expected (a list|an object), got a number \(3\); the official form is"),
    ],
)
def test_a_broken_file_is_named(folder, read, content, message):
    with pytest.raises(DataError, match=rf"LaMP_4/x\.json.*{message}"):
        read(write(folder, "x.json", content))


def test_a_missing_file_says_how_to_get_it(folder):
    with pytest.raises(DataError, match=r"LaMP_4/dev_questions\.json.*python -m sim download"):
        read_questions(folder / "dev_questions.json")


def test_a_folder_in_the_place_of_a_file_is_refused(folder):
    with pytest.raises(DataError, match="expected a file, got a folder"):
        read_questions(folder)


def test_an_empty_list_is_refused(folder):
    with pytest.raises(DataError, match="expected questions, got an empty list"):
        read_questions(write(folder, "x.json", "[]"))


texts = st.text(max_size=20)
ids = st.text(min_size=1, max_size=5)
items = st.builds(
    ProfileItem,
    id=ids,
    fields=st.dictionaries(
        texts.filter(lambda name: name not in ("id", "date")), texts, max_size=3
    ),
    date=st.none() | texts.map(str.strip).filter(bool),
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
        assert read_questions(path) == Questions(tuple(questions))


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
