"""Held-out records as queries, and limits: what is asked, what stays in D_u, who is affected."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf.errors import ConfigError
from lamp.contamination import given_away, normalised
from lamp.dataset import corpus_users, load
from lamp.dates import date_key, precedes
from lamp.holdout import Portion, check_task, first_queries, take_parts
from lamp.records import Pair, ProfileItem, Query, UserHistory
from lamp.tasks import TASKS, query_text

TASK = TASKS["lamp_4"]
HALF = Portion(holdout=0.5, max_records=None, max_queries=None, by_date=True, seed=0)
ALL = replace(HALF, holdout=None)
DATES = ("2011", "2011-01", "2011-01-01", "2011-01-02", "2011-01-01T12:00", "2012", "2012-01-01")


def user(*texts, dates=None, queries=2):
    """A LaMP-4 user with records i0, i1, …, in file order, the newest last unless dates say."""
    dates = dates or [f"2011-01-{number + 1:02d}" for number in range(len(texts))]
    items = [
        ProfileItem(f"i{n}", {"text": text, "title": f"t{n}"}, date)
        for n, (text, date) in enumerate(zip(texts, dates, strict=True))
    ]
    pairs = [Pair(item.id, item.fields["text"], item.fields["title"]) for item in items]
    own = tuple(Query(f"q{n}", TASK.query_before + f"asked {n}", "g") for n in range(queries))
    return UserHistory("u", tuple(items), tuple(pairs), own)


def take(history, portion):
    (taken,), notes = take_parts([history], TASK, portion)
    return taken, notes


def ids(history):
    return [pair.id for pair in history.pairs]


def test_the_newest_records_become_queries_in_the_tasks_own_wording():
    taken, notes = take(user("a", "b", "c", "d"), HALF)
    assert ids(taken) == ["i0", "i1"]
    assert [item.id for item in taken.profile] == ["i0", "i1"]
    assert taken.queries == (
        Query("u/i2", TASK.query_before + "c", "t2"),
        Query("u/i3", TASK.query_before + "d", "t3"),
    )
    assert query_text(TASK, taken.queries[0]) == "c"
    assert "the newest ones, are asked as queries" in notes[0]


def test_dates_are_compared_as_numbers_and_the_file_order_stays():
    taken, _ = take(user("a", "b", "c", dates=["2011-10-1", "2011-9-1", "2010"]), HALF)
    assert ids(taken) == ["i2"]
    assert [query.gold for query in taken.queries] == ["t0", "t1"]  # 1.5 is rounded up


def test_without_dates_a_user_has_its_own_seeded_draw():
    drawn = replace(HALF, by_date=False)
    texts = [f"text {number}" for number in range(20)]
    taken, notes = take(user(*texts), drawn)
    assert take(user(*texts), drawn)[0] == taken
    assert "drawn at random" in notes[0]
    others = (
        take(user(*texts), replace(drawn, seed=1))[0],
        take(replace(user(*texts), user_id="v"), drawn)[0],
    )
    assert all(ids(other) != ids(taken) for other in others)
    assert len(taken.queries) == 10
    assert ids(taken) == sorted(ids(taken), key=lambda name: int(name[1:]))


def test_what_repeats_a_held_out_record_is_neither_trained_nor_asked_again():
    taken, notes = take(user("The end!", "b", "c", "d", "the END", "the end"), HALF)
    assert ids(taken) == ["i1"]
    assert [query.id for query in taken.queries] == ["u/i2", "u/i3", "u/i5"]
    assert "left out of D_u" in notes[1]
    assert notes[1].endswith(": 2")
    assert given_away(taken, TASK) == ()


def test_a_record_that_may_come_after_a_query_is_not_trained():
    dates = ["2011-01-01", "2011", "2010", "2011-02-01"]
    taken, notes = take(user("a", "b", "c", "d", dates=dates), HALF)
    assert [query.id for query in taken.queries] == ["u/i0", "u/i3"]
    assert ids(taken) == ["i2"]
    assert notes[1].endswith("which came first: 1")


def test_a_record_that_is_no_query_and_follows_one_is_not_trained():
    dates = ["2011-01-01", "2011-01-02", "2011-01-03"]
    history = user("a", "b", "c", dates=dates)
    unasked = replace(history, pairs=(*history.pairs[:2], replace(history.pairs[2], response=" ")))
    taken, notes = take(unasked, replace(HALF, max_queries=1))
    assert [query.id for query in taken.queries] == ["u/i1"]
    assert ids(taken) == ["i0"]
    assert notes[1].endswith("which came first: 1")


def test_records_of_one_date_stand_in_the_files_order_and_are_counted():
    taken, notes = take(user(*"abcd", dates=["2011", "2012", "2012", "2012"]), HALF)
    assert [query.id for query in taken.queries] == ["u/i2", "u/i3"]
    assert ids(taken) == ["i0", "i1"]
    assert notes[1].endswith("before which the file lists them: 1")


@given(dates=st.lists(st.sampled_from(DATES), min_size=2, max_size=8), answers=st.integers(0, 255))
def test_nothing_that_may_come_after_a_query_is_trained(dates, answers):
    history = user(*map(str, range(len(dates))), dates=dates)
    pairs = [
        replace(pair, response="t" if answers >> place & 1 else " ")
        for place, pair in enumerate(history.pairs)
    ]
    taken, _ = take(replace(history, pairs=tuple(pairs)), HALF)
    assert taken.pairs
    places = {item.id: place for place, item in enumerate(history.profile)}
    for query in taken.queries:
        asked = places[query.id.partition("/")[2]]
        for own in (places[pair.id] for pair in taken.pairs):
            first, second = date_key(dates[own]), date_key(dates[asked])
            assert precedes(first, second) or (first == second and own < asked)


@pytest.mark.parametrize(("texts", "asked"), [(["a"], 0), (["a", "a"], 0), (["a", "b"], 1)])
def test_at_least_one_text_stays_in_the_history(texts, asked):
    taken, _ = take(user(*texts), replace(HALF, holdout=0.99))
    assert len(taken.queries) == asked
    assert taken.pairs


def test_a_record_whose_response_is_no_answer_stays_in_the_history():
    stars = [Pair(f"i{n}", f"text {n}", answer) for n, answer in enumerate(["3", "4", "great"])]
    items = tuple(ProfileItem(pair.id, {"text": pair.input}, None) for pair in stars)
    history = UserHistory("u", items, tuple(stars), ())
    ((taken,), _) = take_parts([history], TASKS["lamp_3"], replace(HALF, by_date=False))
    assert ids(taken) == ["i2"]


def test_fewer_queries_leave_more_records():
    taken, _ = take(user(*"abcdef"), replace(HALF, max_queries=1))
    assert [query.id for query in taken.queries] == ["u/i5"]
    assert len(taken.pairs) == 5


@pytest.mark.parametrize("by_date", [True, False])
def test_limits_nest(by_date):
    history = user(*(f"text {number}" for number in range(12)))
    portion = replace(HALF, by_date=by_date)
    records = [set(ids(take(history, replace(portion, max_records=n))[0])) for n in (1, 3, 6)]
    asked = [
        {query.id for query in take(history, replace(portion, holdout=share))[0].queries}
        for share in (0.2, 0.4, 0.6)
    ]
    for smaller, larger in (
        *itertools.pairwise(records),
        *itertools.pairwise(asked),
    ):
        assert smaller < larger
    if by_date:
        assert records[0] == {"i5"}


def test_limits_of_the_files_own_queries():
    taken, notes = take(user("a", "b", "c"), replace(ALL, max_records=2))
    assert ids(taken) == ["i1", "i2"]
    assert notes == ("max_records=2: 2 of 3 records stay, the newest ones",)
    assert [query.id for each in first_queries([taken], 1) for query in each.queries] == ["q0"]
    assert first_queries([taken], None) == [taken]
    assert take(user("a", "b"), replace(ALL, max_records=2)) == (user("a", "b"), ())


@pytest.fixture
def three_users(write_lamp, make_question):
    questions = [
        make_question(name, [f"old {name}{n}" for n in range(length)], asks=f"new {name}")
        for name, length in (("u", 4), ("v", 6), ("w", 8))
    ]
    return write_lamp(questions)


def test_holdout_asks_public_users_too_and_needs_no_gold_answers(three_users, make_config):
    (three_users / "LaMP_4" / "dev_outputs.json").unlink()
    data = load(make_config(split="holdout", holdout=0.25))
    assert data.split == "holdout"
    assert [(each.user_id, len(each.pairs), len(each.queries)) for each in data.targets] == [
        ("w", 6, 2)
    ]
    assert [(each.user_id, len(each.pairs), len(each.queries)) for each in data.public] == [
        ("u", 3, 1),
        ("v", 4, 2),
    ]
    assert data.contaminated == {}


def test_holdout_reads_the_longest_of_a_users_histories(write_lamp, make_question, make_config):
    dates = [(f"old {number}", f"2011-0{number}-01") for number in range(1, 6)]
    write_lamp(
        [
            make_question("q1", dates[:2], user="u"),
            make_question("q2", dates, user="u"),
            make_question("q3", dates[:1], user="v"),
        ]
    )
    (target,) = load(make_config(split="holdout")).targets
    assert len(target.pairs) == 3
    assert [query.gold for query in target.queries] == ["title 3", "title 4"]


def test_limits_change_neither_who_is_a_target_nor_who_the_miniatures_may_see(
    three_users, make_config
):
    for keys in ({}, {"max_records": 2}, {"split": "holdout", "max_records": 1}):
        data = load(make_config(**keys))
        assert [each.user_id for each in data.targets] == ["w"]
        assert [each.user_id for each in corpus_users(data, 2, 768)] == ["u"]
    assert all(len(each.pairs) == 1 for each in (*data.targets, *data.public))


def test_a_contaminated_query_takes_no_place_under_max_queries(
    write_lamp, make_question, make_config
):
    old = ["a known article", "another"]
    asked = ["A known article!", "new 1", "new 2"]
    write_lamp([make_question(f"q{n}", old, asks=x, user="u") for n, x in enumerate(asked)])
    (target,) = load(make_config(max_queries=1)).targets
    assert [query.id for query in target.queries] == ["q1"]
    kept = load(make_config(nested={"evaluation.exclude_contaminated": False}, max_queries=1))
    assert [query.id for query in kept.targets[0].queries] == ["q0"]
    assert kept.contaminated == {"u": ("q0",)}


@pytest.mark.parametrize("name", sorted(TASKS))
def test_only_records_that_are_trained_as_they_are_asked_can_be_asked(name):
    if name in ("lamp_2", "lamp_3", "lamp_4", "lamp_5"):
        check_task(TASKS[name], "split=holdout")
    else:
        with pytest.raises(ConfigError, match=f"^split=holdout: records of {name} make no queries"):
            check_task(TASKS[name], "split=holdout")


def test_the_miniature_world_can_be_held_out(make_config):
    world = {"world.population": 12, "world.history_max": 12}
    data = load(make_config("lamp_2", world, data="miniature", split="holdout", max_queries=2))
    assert "the newest ones" in data.notes[0]
    for each in (*data.targets, *data.public):
        assert len(each.queries) == 2
        assert max(item.date for item in each.profile) < "2012"
        texts = {normalised(pair.input) for pair in each.pairs}
        assert not texts & {normalised(query_text(data.task, query)) for query in each.queries}


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["lamp_2", "lamp_3", "lamp_4", "lamp_5"])
def test_real_records_are_held_out_without_a_trace_in_the_history(name, shared_folder, make_config):
    data = load(
        make_config(
            name,
            data=str(shared_folder / "lamp"),
            users=40,
            split="holdout",
            max_records=24,
            max_queries=8,
        )
    )
    assert all(0 < len(each.queries) <= 8 and 0 < len(each.pairs) <= 24 for each in data.targets)
    assert data.contaminated == {}
    for each in (*data.targets, *data.public):
        texts = {normalised(pair.input) for pair in each.pairs}
        assert not texts & {normalised(query_text(data.task, query)) for query in each.queries}


def test_target_records_limit_target_users_alone(make_config):
    whole = load(make_config("lamp_4", data="miniature", users=3))
    short, shorter = (
        load(make_config("lamp_4", data="miniature", users=3, target_records=n)) for n in (4, 2)
    )
    assert short.public == whole.public
    for full, four, two in zip(whole.targets, short.targets, shorter.targets, strict=True):
        assert (len(four.pairs), len(two.pairs)) == (4, 2)
        assert set(ids(two)) < set(ids(four)) < set(ids(full))
        assert full.queries == four.queries == two.queries
    assert any(note.startswith("target_records=4: 12 of ") for note in short.notes)
