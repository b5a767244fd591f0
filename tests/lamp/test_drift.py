"""Histories cut at a date: what becomes D_u, what becomes a query, and who is a target user."""

from __future__ import annotations

import pytest

from conf.checks import check
from conf.errors import ConfigError, DataError
from conf.schema import DriftConfig
from lamp.dataset import load
from lamp.drift import cut_history, is_scorable
from lamp.records import Pair, ProfileItem, UserHistory
from lamp.tasks import TASKS, query_text

TASK = TASKS["lamp_4"]
SETTINGS = DriftConfig(cut="2012-06-15", years=2)
WORLD = {
    "world.population": 12,
    "world.history_min": 40,
    "world.history_max": 60,
    "drift.cut": "2012-01-01",
    "drift.years": 2,
}


def user(*dates, texts=None):
    items, pairs = [], []
    for number, date in enumerate(dates):
        text = texts[number] if texts else f"article {number}"
        items.append(ProfileItem(f"i{number}", {"text": text, "title": f"title {number}"}, date))
        pairs.append(Pair(f"i{number}", text, f"title {number}"))
    return UserHistory("u", tuple(items), tuple(pairs), ())


def known(cut):
    return [pair.id for pair in cut.history.pairs]


def test_what_precedes_the_cut_is_d_u_and_what_follows_is_asked_with_its_age():
    dates = ("2013-06-14", "2012-06-14", "2012-06-15", "2011", "2013-06-15", "2014-06-15")
    cut = cut_history(user(*dates), TASK, SETTINGS)
    assert known(cut) == ["i3", "i1"]  # by date
    assert [item.id for item in cut.history.profile] == ["i3", "i1"]
    assert cut.ages == {"u/i2": 0, "u/i0": 0, "u/i4": 1}  # i5 lies two years behind the cut
    assert [query.gold for query in cut.history.queries] == ["title 2", "title 0", "title 4"]
    assert query_text(TASK, cut.history.queries[0]) == "article 2"
    assert is_scorable(cut, years=2)
    assert not is_scorable(cut, years=3)


@pytest.mark.parametrize(
    ("date", "undated"), [("2012", 1), ("2012-06", 1), ("2013", 1), ("2011", 0)]
)
def test_a_date_too_rough_for_the_cut_is_neither_known_nor_asked(date, undated):
    cut = cut_history(user("2012-01-01", date, "2012-07-01"), TASK, SETTINGS)
    assert cut.undated == undated
    assert ("i1" in known(cut)) == (date == "2011")
    assert set(cut.ages) == {"u/i2"}


def test_a_refresh_learns_what_precedes_its_year_and_is_asked_that_year_alone():
    dates = ("2012-01-01", "2012-07-01", "2013-07-01", "2014-07-01")
    cut = cut_history(user(*dates), TASK, SETTINGS, refresh=1)
    assert known(cut) == ["i0", "i1"]
    assert cut.ages == {"u/i2": 1}


def test_a_record_that_repeats_an_earlier_one_is_no_query_in_any_arm():
    texts = ("one", "two", " two ", "title 0")
    history = user("2012-01-01", "2012-07-01", "2013-07-01", "2013-08-01", texts=texts)
    for refresh, asked in ((0, {"u/i1": 0}), (1, {})):
        cut = cut_history(history, TASK, SETTINGS, refresh)
        assert cut.ages == asked
        assert cut.unusable == 2


def test_a_record_whose_response_is_no_answer_is_no_query():
    pairs = tuple(Pair(f"i{n}", f"text {n}", stars) for n, stars in enumerate(("4", "5", "great")))
    items = tuple(ProfileItem(pair.id, {"text": pair.input}, "2012-07-01") for pair in pairs)
    cut = cut_history(UserHistory("u", items, pairs, ()), TASKS["lamp_3"], SETTINGS)
    assert [query.gold for query in cut.history.queries] == ["4", "5"]
    assert cut.unusable == 1


@pytest.mark.parametrize("date", [None, "last spring"])
def test_a_record_without_a_readable_date_is_refused_by_name(date):
    with pytest.raises(DataError, match=r"user 'u', profile item 'i1', field 'date'.*drift.cut"):
        cut_history(user("2012-01-01", date), TASK, SETTINGS)


def test_every_refresh_has_the_same_users_and_the_same_public_ones(make_config):
    runs = []
    for refresh in (0, 1):
        nested = {**WORLD, "drift.refresh": refresh}
        runs.append(load(make_config(nested=nested, data="miniature", users=3)))
    once, newer = runs
    assert [u.user_id for u in once.targets] == [u.user_id for u in newer.targets]
    assert once.public == newer.public
    for early, late in zip(once.targets, newer.targets, strict=True):
        assert len(early.pairs) == 24
        assert late.pairs[:24] == early.pairs
        assert len(late.pairs) == 36
        assert set(late.queries) == {q for q in early.queries if once.ages[q.id] == 1}
    assert set(once.ages.values()) == {0, 1}
    assert any("cut at 2012-01-01, D_u up to 1 years later" in note for note in newer.notes)


def test_public_users_know_nothing_of_what_follows_the_cut(make_config):
    data = load(make_config(nested=WORLD, data="miniature", users=3))
    assert len(data.public) == 9
    for each in data.public:
        assert all(item.date < "2012-01-01" for item in each.profile)
        assert (len(each.pairs), len(each.queries)) == (16, 8)


def test_too_few_users_with_records_on_both_sides_says_how_many(make_config):
    nested = {**WORLD, "drift.years": 9}
    with pytest.raises(DataError, match=r"3 target users.*0 of the 12 users of lamp_4"):
        load(make_config(nested=nested, data="miniature", users=3))


@pytest.mark.parametrize(
    ("nested", "told"),
    [
        ({"drift.refresh": 1}, "drift.cut=YYYY-MM-DD"),
        ({"drift.cut": "2012-02-30"}, "drift.cut must be a date"),
        ({"drift.cut": "2012-01-01", "drift.refresh": 4}, "drift.refresh must be < drift.years"),
        ({"drift.cut": "2012-01-01", "evaluation.disclose": "sums"}, "evaluation.disclose=queries"),
        ({"drift.cut": "2012-01-01", "engine.name": "deployment"}, "simulated devices only"),
    ],
)
def test_what_excludes_each_other_is_refused(make_config, nested, told):
    with pytest.raises(ConfigError, match=told):
        check(make_config(nested=nested))
