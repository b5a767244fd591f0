from __future__ import annotations

import json

import pytest

from conf.errors import DataError
from lamp.dataset import load
from lamp.official import find_files
from lamp.tasks import TASKS


@pytest.fixture
def write_users(write_lamp, make_question):
    """Write LaMP-4 users u0, u1, … with histories of the given lengths and one query each."""

    def write(*lengths, **options):
        questions = [
            make_question(f"u{number}", [f"old {number}-{n}" for n in range(length)])
            for number, length in enumerate(lengths)
        ]
        return write_lamp(questions, **options)

    return write


@pytest.mark.parametrize(
    ("place", "task", "split"),
    [
        ("LaMP_4/dev", "lamp_4", "auto"),
        ("time/LaMP_4/dev", "lamp_4", "auto"),
        ("time/LaMP_4/dev", "lamp_4", "user"),
        ("LaMP_2/new/dev", "lamp_2", "user"),
        ("time/LaMP_2/new/dev", "lamp_2", "time"),
        ("LaMP_4", "lamp_4", "auto"),
        ("time/LaMP_4", "lamp_4", "auto"),
        ("LaMP_2", "lamp_2", "time"),
        ("LaMP_2/new", "lamp_2", "user"),
        ("time/LaMP_2/new", "lamp_2", "time"),
    ],
)
def test_every_layout_is_found(write_users, place, task, split):
    folder = write_users(1, task=task, place=place)
    questions, outputs = find_files(folder, TASKS[task], "dev", split)
    assert questions == folder / place / "dev_questions.json"
    assert outputs == folder / place / "dev_outputs.json"


@pytest.mark.parametrize(
    ("split", "place"), [("auto", "time/LaMP_4"), ("time", "time/LaMP_4"), ("user", "LaMP_4")]
)
@pytest.mark.parametrize("inner", ["", "/dev"])
def test_with_both_splits_the_configured_one_decides(write_users, split, place, inner):
    write_users(1, place=f"LaMP_4{inner}")
    folder = write_users(1, place=f"time/LaMP_4{inner}")
    questions, _ = find_files(folder, TASKS["lamp_4"], "dev", split)
    assert questions.parent == folder / f"{place}{inner}"


def test_a_missing_question_file_says_where_it_was_looked_for(tmp_path):
    with pytest.raises(
        DataError, match=r"'data'.*time/LaMP_2/new, time/LaMP_2, LaMP_2/new, LaMP_2 or in dev/"
    ):
        find_files(tmp_path / "data", TASKS["lamp_2"], "dev", "auto")


def test_missing_gold_answers_are_named(write_users):
    folder = write_users(1)
    (folder / "LaMP_4" / "dev_outputs.json").unlink()
    with pytest.raises(DataError, match=r"LaMP_4/dev_outputs\.json: expected the gold answers"):
        find_files(folder, TASKS["lamp_4"], "dev", "auto")


def test_a_question_without_gold_is_left_out_counted_and_named(write_users, make_config):
    write_users(1, 1, 1, golds={"u0": "x", "u1": "x"})
    data = load(make_config())
    assert {user.user_id for user in (*data.targets, *data.public)} == {"u0", "u1"}
    (note,) = (note for note in data.notes if "malformed" in note)
    assert note.startswith("malformed records that are left out: 1; the first: LaMP_4/dev_quest")
    assert "question 'u2': expected a gold answer in the output file" in note


def test_a_gold_without_question_is_left_out_counted_and_named(write_users, make_config):
    write_users(1, 1, golds={"u0": "x", "u1": "x", "u2": "x"})
    assert any(
        note == "gold answers without a usable question, which are left out: 1; the first: 'u2'"
        for note in load(make_config()).notes
    )


def test_mostly_without_gold_is_refused(write_users, make_config):
    write_users(1, 1, 1, golds={"u0": "x"})
    with pytest.raises(DataError, match=r"question 'u1': expected a gold.*2 of the 3 questions"):
        load(make_config())


def test_one_question_of_another_wording_is_left_out(write_lamp, make_question, make_config):
    questions = [make_question(name, [f"old {name}"], f"new {name}") for name in "abc"]
    questions[1]["input"] = "Tell me something"
    write_lamp(questions)
    data = load(make_config())
    assert {user.user_id for user in (*data.targets, *data.public)} == {"a", "c"}
    assert any("question 'b', field 'input': expected the official" in n for n in data.notes)


def test_files_of_another_task_are_refused(write_lamp, make_question, make_config):
    questions = [{**make_question(name), "input": "Say no"} for name in "abc"]
    write_lamp(questions)
    with pytest.raises(DataError, match=r"'a', field 'input'.*3 of the 3 questions.*malformed"):
        load(make_config())


def test_the_older_lamp_2_is_named(write_lamp, make_config):
    item = {"id": "i", "text": "t", "title": "t", "category": "politics"}
    question = {"id": "q", "input": "Which category? article: a", "profile": [item]}
    write_lamp([question], {"q": "politics"}, task="lamp_2", place="LaMP_2/dev")
    with pytest.raises(DataError, match=r"news categories.*movie tagging lies under LaMP_2/new"):
        load(make_config("lamp_2"))


def test_the_answers_of_another_task_are_refused(write_users, make_config):
    outputs = write_users(1) / "LaMP_4" / "dev_outputs.json"
    outputs.write_text(json.dumps({"task": "LaMP_5", "golds": [{"id": "u0", "output": "x"}]}))
    with pytest.raises(DataError, match="field 'task': expected 'LaMP_4', got 'LaMP_5'"):
        load(make_config())


def test_a_blank_gold_text_is_left_out(write_users, make_config):
    write_users(1, 1, golds={"u0": " \n", "u1": "x"})
    data = load(make_config())
    assert [user.user_id for user in data.targets] == ["u1"]
    assert any("question 'u0': expected a gold text, got a blank one" in n for n in data.notes)


@pytest.mark.parametrize(
    ("gold", "fine"), [("4", True), ("4.0 ", True), (4, True), ("6", False), ("x", False)]
)
def test_a_gold_rating_must_be_on_the_scale(write_lamp, make_config, gold, fine):
    prompt = "just answer with 1, 2, 3, 4, or 5 without further explanation. review: new"
    profile = [{"id": "i", "text": "old", "score": "3"}]
    write_lamp([{"id": "q", "input": prompt, "profile": profile}], {"q": gold}, task="lamp_3")
    if fine:
        assert float(load(make_config("lamp_3")).targets[0].queries[0].gold) == 4
    else:
        with pytest.raises(DataError, match=r"question 'q': .*number of stars from 1 to 5"):
            load(make_config("lamp_3"))


@pytest.fixture
def write_movies(write_lamp):
    def write(*tags, gold="comedy"):
        profile = [{"id": f"i{n}", "description": "old", "tag": tag} for n, tag in enumerate(tags)]
        question = {"id": "q", "input": "tags: [x] description: new", "profile": profile}
        return write_lamp([question], {"q": gold}, task="lamp_2")

    return write


def test_labels_in_another_spelling_are_the_tasks(write_movies, make_config):
    write_movies("Comedy", " sci-fi.", "ACTION", "action", gold="Dark Comedy")
    data = load(make_config("lamp_2"))
    (user,) = data.targets
    assert [pair.response for pair in user.pairs] == ["comedy", "sci-fi", "action", "action"]
    assert user.queries[0].gold == "dark comedy"
    assert any("labels in another spelling" in note and note.endswith("3") for note in data.notes)


@pytest.mark.parametrize("stars", [4, 4.0, "4.0", "4 stars"])
def test_stars_in_another_spelling_are_the_tasks(write_lamp, make_config, stars):
    prompt = "just answer with 1, 2, 3, 4, or 5 without further explanation. review: new"
    profile = [{"id": "i", "text": "old", "score": stars}]
    golds = {"q": stars}
    write_lamp([{"id": "q", "input": prompt, "profile": profile}], golds, task="lamp_3")
    (user,) = load(make_config("lamp_3")).targets
    assert (user.pairs[0].response, user.queries[0].gold) == ("4", "4")


def test_odd_labels_are_noted_and_refused_when_there_are_no_others(write_movies, make_config):
    write_movies("drama", "comedy")
    notes = load(make_config("lamp_2")).notes
    assert any("outside the label set: 1 of 2" in note for note in notes)
    write_movies("drama", "thriller")
    with pytest.raises(DataError, match=r"field 'tag': expected labels of LaMP_2 \(sci-fi, .*\)"):
        load(make_config("lamp_2"))


def test_a_gold_label_must_be_in_the_set(write_movies, make_config):
    write_movies("comedy", gold="drama")
    with pytest.raises(DataError, match="expected one of the 15 labels of LaMP_2"):
        load(make_config("lamp_2"))


def test_gold_answers_in_a_script_that_rouge_does_not_see_are_noted(write_users, make_config):
    write_users(1, 1, golds={"u0": "港湾大桥", "u1": "x"})
    assert any("half of the letters are a-z: 1 of 2;" in n for n in load(make_config()).notes)
