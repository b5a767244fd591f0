"""Small inputs that failed somewhere once, each with its right outcome; see their README."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from conf.compose import compose
from conf.errors import DataError
from conf.schema import PrivacyConfig
from lamp import metrics
from lamp.dataset import load
from lamp.dialogue.lexicons import read_lexicons
from models.miniature.nli import read_nli
from sim.commands.lexicons import texts_by_domain
from sim.run.provision import draw_preferences
from storage.text_files import printable

pytestmark = pytest.mark.realdata

# folder -> (users that remain, what a note says); "" for no note beyond those of every run
READ = {
    "base": (4, ""),
    "bom": (4, ""),
    "crlf": (4, ""),
    "utf16": (4, ""),
    "int_question_id": (4, ""),
    "int_user_id": (4, ""),
    "int_item_id": (4, ""),
    "case_users": (4, ""),
    "control_user": (4, ""),
    "long_user": (4, ""),
    "lone_surrogate": (4, ""),
    "official_layout": (4, ""),
    "jsonlines": (4, ""),
    "markup_users": (4, ""),
    "compact_mixed_date": (4, ""),
    "year_vs_full": (4, ""),
    "tz_date": (4, ""),
    "null_date": (4, "split=auto took 'user'"),
    "no_date_one": (4, "split=auto took 'user'"),
    "all_null_date": (4, "split=auto took 'user'"),
    "empty_date": (4, "split=auto took 'user'"),
    "movies": (4, ""),
    "movies_tag_case": (4, "labels in another spelling"),
    "movies_gold_case": (4, ""),
    "stars": (4, ""),
    "stars_int": (4, ""),
    "stars_float_str": (4, "labels in another spelling"),
    "movies_one_broken_prompt": (3, "question '110', field 'input'"),
    "empty_gold": (3, "question 'ann-1': expected a gold text, got a blank one"),
    "empty_profile_one": (3, "question 'ann-1', field 'profile': expected at least one item"),
    "empty_text": (3, "left out: 5; the first"),
    "empty_title": (3, "left out: 5; the first"),
    "null_title": (4, "profile item 'ann-p0', field 'title': expected a string, got null"),
    "nan_title": (4, "profile item 'ann-p0', field 'title': expected a string, got null"),
    "missing_gold_one": (3, "expected a gold answer in the output file, there is none"),
    "extra_gold_one": (4, "gold answers without a usable question, which are left out: 1"),
    "dup_item_id": (4, "item number 5 repeats that of item number 1"),
    "chinese": (2, "half of the letters are a-z: 4 of 4"),  # two public users repeat a target
}
REFUSED = {
    "news_categories": "news categories.*movie tagging lies under LaMP_2/new",
    "two_digit_year": r"item 'ann-p3', field 'date': expected YYYY, .*got '25-01-01'",
    "us_date": r"field 'date': expected YYYY, .*got '04/06/2009'",
    "eu_date": r"field 'date': expected YYYY, .*got '06\.04\.2009'",
    "twitter_date": r"field 'date': expected YYYY, .*got 'Mon Apr 06 22:19:45 PDT 2009'",
    "extra_number": r"item 'ann-p0', field 'votes': expected a string, got a number \(3\)",
    "dup_question_id": "question number 2 repeats that of question number 1",
    "wrapped": "expected a list, got an object with the keys 'data'",
    "latin1": r"line 1, byte \d+: expected UTF-8, got 0xe9",
    "task_name_dash": "expected 'LaMP_4', got 'LaMP-4'",
    "oppu_task_name": "expected 'LaMP_2', got 'LaMP_2M'",
    "huge_int": "thousands of digits",
}
TABLES = {
    "blank": None,
    "bom_crlf": None,
    "caps": None,
    "plain": None,
    "semicolon": None,
    "spaces": None,
    "utf16": None,
    "cp1252": r"line 3, byte 26: expected UTF-8, got 0xe9",
    "decimal_comma": r"line 2, column ratio: expected a ratio from 0 to 1 .*got '0,5'",
    "semicolon_decimal_comma": r"line 2, column ratio: .*got '0,5'",
    "dup": r"line 3: expected each user_id once, 'ann' stands in line 2 too",
    "empty": "expected the columns user_id, ratio, got an empty file",
    "hundred": r"line 2, column ratio: .*got '50'",
    "nan": r"line 2, column ratio: .*got 'nan'",
    "percent": r"line 2, column ratio: .*got '50%'",
}
OTHERS = {"csv", "text"}


@pytest.fixture(scope="session")
def cases(shared_folder):
    folder = shared_folder / "cases"
    if not folder.is_dir():
        pytest.skip("needs the small inputs in ../shared/cases, which are not there")
    return folder


@cache
def composed(task):
    return compose([f"task={task}", "users=2", "model=qwen2.5"])


def loaded(cases, name):
    (questions,) = (cases / name).rglob("*questions.json")
    number = next(part for part in questions.parts if part.startswith("LaMP_")).lower()
    return load(replace(composed(number), data=str(cases / name)))


def users_of(data):
    return (*data.targets, *data.public)


@pytest.mark.parametrize("name", sorted(READ))
def test_what_can_be_read_is_read_and_what_is_left_out_is_named(cases, name):
    data = loaded(cases, name)
    users, note = READ[name]
    assert len(users_of(data)) == users
    assert any(note in each for each in data.notes) or not note
    assert users < 4 or note or not any("left out" in each for each in data.notes)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_cannot_be_read_is_refused_in_one_line(cases, name):
    with pytest.raises(DataError, match=REFUSED[name]) as error:
        loaded(cases, name)
    assert printable(str(error.value)) == str(error.value)
    assert len(str(error.value)) < 700


@pytest.mark.parametrize("name", sorted(TABLES))
def test_tables_of_policies(cases, name):
    config = PrivacyConfig(kind="per_user", csv=str(cases / "csv" / f"{name}.csv"))
    if (message := TABLES[name]) is None:
        found = draw_preferences(["ann", "cai"], config, seed=0)
        assert {user: each.ratio for user, each in found.items()} == {"ann": 0.5, "cai": 1.0}
    else:
        with pytest.raises(DataError, match=message):
            draw_preferences(["ann", "cai"], config, seed=0)


@pytest.mark.parametrize("name", ["nli.jsonl", "nli_bom.jsonl"])
def test_pairs_for_the_judge(cases, name):
    assert len(read_nli(cases / name)) == 120


def test_lexicons_and_texts(cases):
    (lexicon,) = read_lexicons(cases / "text" / "lex_bom.json")
    assert (lexicon.domain, lexicon.words) == ("a", ("b",))
    with pytest.raises(DataError, match=r"a\.txt, line 1, byte 4: expected UTF-8, got 0xe9"):
        texts_by_domain(cases / "text" / "a.txt")


def test_dates_of_mixed_form_are_ordered_as_dates(cases):
    users = {user.user_id: user for user in users_of(loaded(cases, "compact_mixed_date"))}
    assert [item.id for item in users["ann"].profile] == ["ann-p0", "ann-p1", "ann-p2", "ann-p3"]
    users = {user.user_id: user for user in users_of(loaded(cases, "year_vs_full"))}
    assert [item.id for item in users["ann"].profile] == ["ann-p3", "ann-p0", "ann-p1", "ann-p2"]


def test_verbatim_answers_in_another_script_score_one_and_copies_are_no_diverse_texts(cases):
    data = loaded(cases, "chinese")
    for user in users_of(data):
        for query in user.queries:
            score = metrics.score_query(data.task, query.gold, query.gold)
            assert score.unicode_rouge1 == 1.0
        for pair in user.pairs:
            assert metrics.rouge_l(pair.input, pair.input) == 1.0


def test_every_listed_folder_has_an_outcome(cases):
    folders = {path.name for path in cases.iterdir() if path.is_dir()}
    assert folders == READ.keys() | REFUSED.keys() | OTHERS
    assert {path.stem for path in (cases / "csv").iterdir()} == TABLES.keys()
