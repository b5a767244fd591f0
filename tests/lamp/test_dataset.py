from __future__ import annotations

from dataclasses import replace

import pytest

from conf.errors import ConfigError, DataError
from lamp.dataset import as_dataset, corpus_users, load
from lamp.records import Pair
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


def user_ids(users):
    return [user.user_id for user in users]


def test_targets_are_the_longest_histories_and_all_others_are_public(write_users, make_config):
    write_users(1, 4, 2, 3)
    data = load(make_config(users=2))
    assert user_ids(data.targets) == ["u1", "u3"]
    assert user_ids(data.public) == ["u0", "u2"]
    assert data.split == "user"
    assert data.task.name == "lamp_4"
    assert not any("by user id" in note for note in data.notes)


def test_a_user_has_pairs_queries_and_gold(write_lamp, make_question, make_config):
    write_lamp([make_question("q", ["old a", "old b"]), make_question("r")], {"q": "G", "r": "H"})
    (user,) = load(make_config()).targets
    assert user.pairs == (Pair("q-0", "old a", "title 0"), Pair("q-1", "old b", "title 1"))
    (query,) = user.queries
    assert (query.id, query.gold) == ("q", "G")
    assert query.input.endswith("a new article")


def test_fields_are_cut_to_the_configured_words(write_lamp, make_question, make_config):
    write_lamp([make_question("q", ["one two three"])])
    (user,) = load(make_config(nested={"task.max_field_words": 2})).targets
    assert user.pairs[0].input == "one two"
    assert user.profile[0].fields["text"] == "one two three"


def test_skipped_users_are_neither_targets_nor_public(write_users, make_config):
    write_users(5, 4, 3, 2)
    data = load(make_config(users=1, skip_users=2))
    assert user_ids(data.targets) == ["u2"]
    assert user_ids(data.public) == ["u3"]
    assert data.skipped == ("u0", "u1")


def test_equal_lengths_are_chosen_by_id_and_the_notes_say_so(write_users, make_config):
    write_users(2, 2, 2)
    data = load(make_config(users=2))
    assert user_ids(data.targets) == ["u0", "u1"]
    assert any("a history of 2 records: 3 of 3;" in note for note in data.notes)


def test_a_tie_at_the_border_is_noted(write_users, make_config):
    write_users(3, 2, 2, 1)
    notes = load(make_config(users=2)).notes
    assert any("a history of 2 records: 2 of 4;" in n and "place 2" in n for n in notes)


def test_too_few_users_says_how_many_there_are(write_users, make_config):
    write_users(1, 2)
    with pytest.raises(DataError, match=r"2 target users are asked for after skip_users=1.*has 2"):
        load(make_config(users=2, skip_users=1))


def test_nobody_left_for_the_public_is_noted(write_users, make_config):
    write_users(1, 2)
    assert any("no public users" in note for note in load(make_config(users=2)).notes)


def test_time_split_groups_questions_by_user(write_lamp, make_question, make_config):
    dates = [("old a", "2011-01-01"), ("old b", "2011-02-01")]
    write_lamp(
        [
            make_question("q2", dates, user="u"),
            make_question("q1", dates[:1], user="u"),
            make_question("q3", dates[:1], user="v"),
        ]
    )
    data = load(make_config(users=2))
    assert data.split == "time"
    assert user_ids(data.targets) == ["u", "v"]
    assert [pair.input for pair in data.targets[0].pairs] == ["old a"]
    assert [query.id for query in data.targets[0].queries] == ["q2", "q1"]


def test_a_query_that_stands_in_the_history_is_left_out(write_lamp, make_question, make_config):
    questions = [
        make_question("q1", ["old a", " a  known\narticle"], asks="a known article", user="u"),
        make_question("q2", ["old a"], asks="something new", user="u"),
        make_question("q3", ["old b"], asks="old b", user="v"),
    ]
    write_lamp(questions)
    data = load(make_config())
    assert data.contaminated == {"u": ("q1",)}  # v is public
    assert [query.id for query in data.targets[0].queries] == ["q2"]
    assert [query.id for query in data.public[0].queries] == ["q3"]
    assert any("own history: 1, of 1 users; left out" in n for n in data.notes)


def test_a_contaminated_query_can_be_kept(write_lamp, make_question, make_config):
    write_lamp([make_question("q", ["old a"], asks="old a")])
    data = load(make_config(nested={"evaluation.exclude_contaminated": False}))
    assert data.contaminated == {"q": ("q",)}
    assert len(data.targets[0].queries) == 1


def test_a_user_without_queries_stays_and_is_noted(write_lamp, make_question, make_config):
    write_lamp([make_question("q", ["old a"], asks="old a")])
    data = load(make_config())
    assert data.targets[0].queries == ()
    assert any("target users without a query: 1;" in note for note in data.notes)


def test_a_tweet_that_is_asked_back_for_is_contaminated(write_lamp, make_config):
    prompt = "Paraphrase the following tweet without any explanation before or after it: "
    question = {
        "id": "q",
        "input": f"{prompt}I am tired.",
        "profile": [{"id": "i", "text": "so tired :("}],
    }
    write_lamp([question], {"q": "so tired :("}, task="lamp_7")
    assert load(make_config("lamp_7")).contaminated == {"q": ("q",)}


def test_a_citation_pair_needs_its_field_in_the_file(write_lamp, make_config):
    prompt = 'written the paper with the title "T", which reference is related?'
    profile = [{"id": "i", "title": "t", "abstract": "a"}]
    write_lamp([{"id": "q", "input": prompt, "profile": profile}], {"q": "[1]"}, task="lamp_1")
    assert load(make_config("lamp_1")).targets[0].pairs == (Pair("i", "a", "t"),)
    with pytest.raises(DataError, match="question 'q', profile item 'i', field 'citation'"):
        load(make_config("lamp_1", {"task.pair": "citation"}))


def test_corpus_users_never_include_the_longest_histories(write_users, make_config):
    write_users(1, 2, 3, 4, 5, 6)
    data = load(make_config(users=1, skip_users=1))
    assert user_ids(corpus_users(data, unseen=0, max_words=768)) == ["u0", "u1", "u2", "u3"]
    assert user_ids(corpus_users(data, unseen=4, max_words=768)) == ["u0", "u1"]


def test_public_users_are_kept_apart_from_target_and_skipped_users(
    write_lamp, make_question, make_config
):
    write_lamp(
        [
            make_question("s", ["skipped 1", "skipped 2", "s 3", "s 4"], asks="asked s"),
            make_question("t", ["target 1", "t 2", "t 3"], asks="asked t"),
            make_question("p", ["Skipped 1!", "own"], asks="new"),
            make_question("q", ["asked t"], asks="TARGET 1"),
        ]
    )
    data = load(make_config(users=1, skip_users=1))
    assert user_ids(data.public) == ["p"]
    assert [pair.input for pair in data.public[0].pairs] == ["own"]
    assert data.left_out == 2
    assert any("left out with their last record: 1" in note for note in data.notes)


def test_runs_within_the_holdout_share_the_corpus_also_where_users_share_texts(
    write_lamp, make_question, make_config
):
    texts = {"a": ["x", "y", "z", "a"], "b": ["x", "y", "b"], "c": ["b", "c"], "d": ["A", "d"]}
    write_lamp([make_question(name, own, asks=f"asked {name}") for name, own in texts.items()])
    corpora = {
        tuple(
            (user.user_id, *(pair.input for pair in user.pairs))
            for user in corpus_users(load(make_config(users=users)), 3, 768)
        )
        for users in (1, 2, 3)
    }
    assert corpora == {(("d", "d"),)}


def test_runs_within_the_holdout_share_the_corpus(write_users, make_config):
    write_users(1, 2, 3, 3, 3, 6)
    corpora = {
        tuple(user_ids(corpus_users(load(make_config(users=users, skip_users=skip)), 4, 768)))
        for users, skip in [(1, 0), (3, 0), (4, 0), (2, 2)]
    }
    assert len(corpora) == 1


def test_a_holdout_of_everybody_is_refused(write_users, make_config):
    write_users(1, 2, 3)
    with pytest.raises(ConfigError, match=r"model\.build\.holdout: 2 public users.*the 3 longest"):
        corpus_users(load(make_config()), unseen=3, max_words=768)


def test_a_history_is_a_dataset_of_strings(write_users, make_config):
    write_users(2)
    (user,) = load(make_config()).targets
    dataset = as_dataset(user)
    assert dataset.column_names == ["id", "input", "response"]
    assert dataset[1] == {"id": "u0-1", "input": "old 0-1", "response": "title 1"}
    assert as_dataset(replace(user, pairs=())).features == dataset.features


@pytest.mark.parametrize("task", [name for name in TASKS if name != "dialogue"])
def test_the_miniature_world_is_written_once_and_read_as_official_files(
    task, make_config, tmp_path
):
    config = make_config(
        task, {"world.population": 12, "world.history_max": 12}, data="miniature", users=3
    )
    data = load(config)
    assert data.split == "time"
    assert (len(data.targets), len(data.public)) == (3, 9)
    assert all(len(user.queries) >= 5 for user in data.targets)
    written = [path.stat().st_mtime_ns for path in sorted((tmp_path / "cache").rglob("*.json"))]
    assert load(config) == data
    again = [path.stat().st_mtime_ns for path in sorted((tmp_path / "cache").rglob("*.json"))]
    assert again == written


def test_the_miniature_world_has_one_part(make_config):
    with pytest.raises(ConfigError, match="part=dev only, got 'test'"):
        load(make_config(data="miniature", part="test"))
