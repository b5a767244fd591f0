from __future__ import annotations

import pytest

from conf.errors import DataError
from lamp.files import Question
from lamp.records import ProfileItem
from lamp.splits import split_questions

WHERE = "LaMP_4/dev_questions.json"


def ask(identifier, user, *dates):
    """Make a question whose profile items i0, i1, … have the given dates."""
    profile = tuple(ProfileItem(f"i{n}", {"text": "x"}, date) for n, date in enumerate(dates))
    return Question(identifier, "input", profile, user)


def item_ids(member):
    return [item.id for item in member.profile]


def test_the_history_is_the_one_before_the_first_query():
    questions = [
        ask("q9", "u", "2011-01-01", "2011-03-01", "2011-02-01", "2011-05-01"),
        ask("q2", "u", "2011-01-01", "2011-03-01", "2011-02-01"),
    ]
    split = split_questions(questions, "time", WHERE)
    (user,) = split.members
    assert item_ids(user) == ["i0", "i2", "i1"]  # by date
    assert [question.id for question in user.questions] == ["q9", "q2"]  # in file order
    assert split.notes == ()


def test_of_histories_that_end_on_one_day_what_stands_in_all_of_them_counts():
    questions = [ask("q1", "u", "2011", "2012", "2012"), ask("q2", "u", "2011", "2012")]
    questions[0].profile[2].fields["text"] = "another"
    split = split_questions(questions, "time", WHERE)
    assert item_ids(split.members[0]) == ["i0", "i1"]
    assert "several histories that end on the same date: 1;" in split.notes[0]


def test_a_record_that_may_come_after_another_question_is_not_in_the_history():
    # that of q1 is the shorter; its last record is dated so roughly that it may follow q2
    questions = [ask("q1", "u", "2011-01-01", "2012"), ask("q2", "u", *["2011-01-01"] * 2)]
    questions.append(ask("q3", "u", "2011-01-01", "2012-05-01"))
    for number, question in enumerate(questions):
        question.profile[1].fields["text"] = f"only before q{number + 1}"
    split = split_questions(questions[::2], "time", WHERE)
    assert item_ids(split.members[0]) == ["i0"]
    assert [question.id for question in split.members[0].questions] == ["q1", "q3"]


def test_questions_that_share_no_history_are_not_asked_of_the_others():
    questions = [ask("q1", "u", "2012"), ask("q2", "u", "2012"), ask("q3", "u", "2012", "2013")]
    questions[0].profile[0].fields["text"] = "only before q1"
    split = split_questions(questions, "time", WHERE)
    (user,) = split.members
    assert [item.fields["text"] for item in user.profile] == ["only before q1"]
    assert [question.id for question in user.questions] == ["q1", "q3"]
    assert any("left out, as nothing shows" in note and note.endswith("1") for note in split.notes)


def test_the_same_history_twice_is_not_ambiguous():
    questions = [ask("q1", "u", "2011", "2012"), ask("q2", "u", "2011", "2012")]
    assert split_questions(questions, "time", WHERE).notes == ()


def test_dates_are_compared_as_numbers():
    questions = [ask("q1", "u", "2011-10-1"), ask("q2", "u", "2011-9-30", "2011-2-3")]
    (user,) = split_questions(questions, "time", WHERE).members
    assert item_ids(user) == ["i1", "i0"]


def test_auto_takes_time_where_all_have_user_and_date():
    split = split_questions([ask("q1", "u", "2011"), ask("q2", "v", "2012")], "auto", WHERE)
    assert split.name == "time"
    assert split.notes == ()


@pytest.mark.parametrize("questions", [[ask("q1", None, "2011")], [ask("q1", "u", "2011", None)]])
def test_auto_takes_user_otherwise_and_says_so(questions):
    split = split_questions(questions, "auto", WHERE)
    assert split.name == "user"
    assert "split=auto took 'user'" in split.notes[0]
    assert "without dates" in split.notes[1]


def test_without_user_ids_each_question_is_a_user():
    questions = [ask("q2", None, "2011"), ask("q1", None, None)]
    members = split_questions(questions, "user", WHERE).members
    assert [member.user_id for member in members] == ["q2", "q1"]


def test_with_user_ids_the_first_question_by_id_gives_the_history():
    questions = [ask("q2", "u", None, None), ask("q1", "u", None), ask("q3", "v", None)]
    members = split_questions(questions, "user", WHERE).members
    assert [(each.user_id, len(each.profile), len(each.questions)) for each in members] == [
        ("u", 1, 2),
        ("v", 1, 1),
    ]


@pytest.mark.parametrize(
    ("questions", "name", "message"),
    [
        ([ask("q1", None, "2011")], "time", "question 'q1', field 'user_id'.*set split=user"),
        ([ask("q1", "u", None)], "time", "item 'i0', field 'date'.*there is none; .*split=user"),
        ([ask("q1", "u", "soon")], "auto", "item 'i0', field 'date'.*YYYY-MM-DD.*got 'soon'"),
        (
            [ask("q1", "u", None), ask("q2", None, None)],
            "user",
            "question 'q2', field 'user_id'.*every question a user_id, or none",
        ),
    ],
)
def test_what_a_split_needs_is_named(questions, name, message):
    with pytest.raises(DataError, match=message) as error:
        split_questions(questions, name, WHERE)
    assert str(error.value).startswith(WHERE)


@pytest.mark.parametrize("name", ["user", "holdout"])
def test_user_ids_that_are_question_ids_are_noticed(name):
    alone = [ask("q1", None, None), ask("q2", None, None)]
    (note,) = [each for each in split_questions(alone, name, WHERE).notes if "question ids" in each]
    assert note.startswith("user ids that are question ids: 2 of 2;")
    named = [ask("q1", "q1", None), ask("q2", "u", None), ask("q3", "u", None)]
    assert not [
        each for each in split_questions(named, name, WHERE).notes if "question ids" in each
    ]
    dated = [ask("q1", "q1", "2011"), ask("q2", "q2", "2012"), ask("q3", "u", "2012")]
    assert "2 of 3" in split_questions(dated, "time", WHERE).notes[0]
