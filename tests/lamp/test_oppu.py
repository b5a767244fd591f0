"""OPPU's processed files: who is a target user stands in them; what is malformed is left out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conf.compose import compose
from conf.errors import ConfigError, DataError
from lamp.dataset import load
from lamp.oppu import read_oppu
from lamp.tasks import TASKS

ASKED = "Generate a headline for the following article: "


def user(name: str, records: int, queries: int = 1, **more: object) -> dict[str, object]:
    """A user of OPPU's form with invented records; ids are numbers, as theirs may be."""
    number = sum(name.encode()) * 1000
    return {
        "user_id": number,
        "profile": [
            {"id": number + place, "date": 2010 + place, "text": f"{name} {place}", "title": "T"}
            for place in range(records)
        ],
        "query": [
            {"id": number + 500 + place, "input": f"{ASKED}new {name} {place}", "gold": f"G {name}"}
            for place in range(queries)
        ],
        **more,
    }


def identifier(name: str) -> str:
    return str(sum(name.encode()) * 1000)


TARGETS = [user("ana", 3, queries=2), user("ben", 2), user("cy", 4)]
OTHERS = [user("dan", 9), user("eve", 1, queries=0)]


def write(folder: Path, targets: object, others: object, **more: object) -> Path:
    place = folder / "data" / "news_headline"
    place.mkdir(parents=True, exist_ok=True)
    files = {"user_top_100_history.json": targets, "user_others.json": others}
    for name, content in {**files, **more}.items():
        (place / name).write_text(json.dumps(content), encoding="utf-8")
    return folder / "data"


def config(folder: Path, *words: str):
    return compose(
        ["task=lamp_4", "files=oppu", f"data='{folder}'", "model=qwen2.5", "users=2", *words]
    )


def test_target_users_are_those_of_the_file_longest_first_and_nobody_else_of_it_is_public(tmp_path):
    data = load(config(write(tmp_path, TARGETS, OTHERS)))
    assert [each.user_id for each in data.targets] == sorted([identifier("cy"), identifier("ana")])
    assert [each.user_id for each in data.public] == sorted([identifier("dan"), identifier("eve")])
    assert data.skipped == (identifier("ben"),)
    assert data.split == "oppu"


def test_a_users_records_and_queries_are_read_as_they_stand(tmp_path):
    data = load(config(write(tmp_path, TARGETS, OTHERS)))
    ana = next(each for each in data.targets if each.user_id == identifier("ana"))
    assert [pair.input for pair in ana.pairs] == ["ana 0", "ana 1", "ana 2"]
    assert [(query.input, query.gold) for query in ana.queries] == [
        (f"{ASKED}new ana 0", "G ana"),
        (f"{ASKED}new ana 1", "G ana"),
    ]
    assert ana.profile[0].date == "2010"
    eve = next(each for each in data.public if each.user_id == identifier("eve"))
    assert (len(eve.pairs), eve.queries) == (1, ())


def test_no_queries_may_be_written_as_an_empty_list_as_null_or_not_at_all(tmp_path):
    absent = user("eve", 1)
    del absent["query"]
    found = [
        load(config(write(tmp_path, TARGETS, [OTHERS[0], eve]))).public
        for eve in (user("eve", 1, queries=0), user("eve", 1, query=None), absent)
    ]
    assert found[0] == found[1] == found[2]


def test_a_query_without_a_gold_gets_that_of_the_label_file_whatever_task_it_names(tmp_path):
    bare = user("ana", 3)
    bare["query"] = [{"id": 7, "input": f"{ASKED}new"}]
    labels = {"task": "LaMP_2", "golds": [{"id": "7", "output": "from labels"}]}
    more = {"user_top_100_history_label.json": labels}
    data = load(config(write(tmp_path, [bare, user("ben", 2)], OTHERS, **more)))
    assert [query.gold for each in data.targets for query in each.queries if query.id == "7"] == [
        "from labels"
    ]


def test_tweets_have_a_file_of_another_name(tmp_path):
    place = tmp_path / "tweet_paraphrase"
    place.mkdir()
    prompt = "Paraphrase the following tweet without any explanation before or after it: "
    people = [
        {
            "user_id": name,
            "profile": [{"id": f"{name}1", "text": f"so {name} :("}],
            "query": [{"id": f"{name}q", "input": f"{prompt}I am {name}.", "gold": f"{name}!"}],
        }
        for name in ("ana", "ben")
    ]
    (place / "user_more_100_history.json").write_text(json.dumps(people[:1]))
    (place / "user_others.json").write_text(json.dumps(people[1:]))
    words = ["task=lamp_7", "files=oppu", f"data='{tmp_path}'", "users=1", "model=qwen2.5"]
    data = load(compose(words))
    assert data.targets[0].queries[0].gold == "ana!"


def test_malformed_records_are_counted_and_named(tmp_path):
    broken = user("zoe", 3)
    broken["profile"][1] = {"id": 1, "text": "no title"}
    wordless = user("pam", 2)
    wordless["query"] = [{"id": 9, "input": "Write something", "gold": "x"}]
    data = load(config(write(tmp_path, [*TARGETS, broken, wordless], OTHERS)))
    notes = " ".join(data.notes)
    assert "malformed users and records: 1; the first: news_headline/user_top_100" in notes
    assert "malformed records that are left out: 1" in notes


@pytest.mark.parametrize(
    ("targets", "others", "message"),
    [
        (TARGETS, [user("ana", 3)], "stands twice in OPPU's files"),
        (TARGETS, [], "expected users, got an empty list"),
        (TARGETS, {"ana": []}, "expected a list, got an object.*OPPU's form is a list of users"),
        ([user("ana", 2, query="none")], OTHERS, r"field 'query'.*malformed"),
        (TARGETS, [{"user_id": 1, "profile": []}], "at least one item that can be used"),
    ],
)
def test_files_that_cannot_be_used_are_refused(tmp_path, targets, others, message):
    with pytest.raises(DataError, match=message):
        load(config(write(tmp_path, targets, others)))


def test_a_folder_without_the_files_is_refused_with_the_name_that_is_missing(tmp_path):
    with pytest.raises(DataError, match=r"expected news_headline/user_top_100_history.json"):
        load(config(tmp_path))


def test_more_target_users_than_the_file_has_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"4 target users are asked for, .* has 3"):
        load(config(write(tmp_path, TARGETS, OTHERS), "users=4"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["split=holdout"], "files=oppu needs split=auto"),
        (["part=test"], "files=oppu has no parts"),
        (["drift.cut=2012-01-01"], "files=oppu and drift.cut exclude"),
        (["data=miniature"], "files=oppu needs data="),
    ],
)
def test_settings_that_say_the_same_otherwise_are_refused(tmp_path, words, message):
    with pytest.raises(ConfigError, match=message):
        config(tmp_path, *words)


def test_a_task_that_oppu_has_not_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="OPPU has no files of dialogue; set files=lamp"):
        read_oppu(tmp_path, TASKS["dialogue"])


def test_the_preset_states_oppus_settings():
    qlora = compose(["experiment=oppu", "data=x"]).qlora
    assert (qlora.rank, qlora.alpha, qlora.learning_rate, qlora.epochs) == (8, 8, 1e-4, 2)
    assert (qlora.base_epochs, qlora.max_seq_len) == (3, 2048)
