"""The miniature world: official files, equal for equal seeds, and texts with a known meaning."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter

import pytest

from conf.errors import ConfigError
from conf.schema import WorldConfig
from lamp import world
from lamp.tasks import TASKS
from lamp.world import grammar

SMALL = WorldConfig(population=6, queries_per_user=5, history_min=3, history_max=9)
ALL_TASKS = sorted(world.MAKERS)
# of the bytes that version 2 wrote before the world could change
VERSION_2 = {
    "lamp_1": "c5f17e0f1d88cb25",
    "lamp_2": "ee379972e14a7d51",
    "lamp_3": "fbdf5fec0e21a563",
    "lamp_4": "1f0f727d82260065",
    "lamp_5": "823e9b17123b85f8",
    "lamp_7": "184499b8ae6b0590",
}


def written(folder, task, config=SMALL):
    world.write_world(folder, task, config)
    questions = json.loads((folder / TASKS[task].official / "dev_questions.json").read_text())
    outputs = json.loads((folder / TASKS[task].official / "dev_outputs.json").read_text())
    return questions, outputs


def texts_of(task, questions):
    return [item[TASKS[task].input_field] for q in questions for item in q["profile"]]


@pytest.mark.parametrize("task", ALL_TASKS)
def test_the_files_have_the_official_form(tmp_path, task):
    questions, outputs = written(tmp_path, task)
    assert outputs["task"] == TASKS[task].official
    assert [gold["id"] for gold in outputs["golds"]] == [q["id"] for q in questions]
    assert Counter(Counter(q["user_id"] for q in questions).values()) == {5: 6}
    for question in questions:
        assert set(question) == {"id", "user_id", "input", "profile"}
        assert 3 <= len(question["profile"]) <= 9
        dates = [item["date"] for item in question["profile"]]
        assert dates == sorted(dates)
        for item in question["profile"]:
            assert set(item) == {"id", "date", *_official_fields(task)}
            assert all(isinstance(value, str) and value for value in item.values())


def _official_fields(task):
    fields = {"lamp_1": ("title", "abstract"), "lamp_2": ("description", "tag")}
    fields |= {"lamp_3": ("text", "score"), "lamp_4": ("text", "title")}
    return (fields | {"lamp_5": ("title", "abstract"), "lamp_7": ("text",)})[task]


@pytest.mark.parametrize("task", ALL_TASKS)
def test_a_seed_always_gives_the_same_bytes_and_another_seed_other_ones(tmp_path, task):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        written(tmp_path / name, task, WorldConfig(population=3, history_max=9, seed=seed))
    one, same, other = (
        (tmp_path / name / TASKS[task].official / "dev_questions.json").read_bytes()
        for name in "abc"
    )
    assert one == same
    assert one != other


@pytest.mark.parametrize("task", ALL_TASKS)
def test_a_world_in_which_nobody_changes_keeps_its_bytes(tmp_path, task):
    written(tmp_path, task, WorldConfig(population=2, queries_per_user=5, history_min=30,
                                        history_max=30))  # fmt: skip
    files = sorted((tmp_path / TASKS[task].official).iterdir())
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    assert digest[:16] == VERSION_2[task]
    assert world.VERSION == "2"


@pytest.mark.parametrize("task", ALL_TASKS)
def test_drift_leaves_the_first_year_alone_and_the_form_of_the_files(tmp_path, task):
    still, changing = (
        written(tmp_path / str(drift), task, WorldConfig(population=2, queries_per_user=5,
                                                         history_min=30, history_max=30,
                                                         drift=drift))
        for drift in (0.0, 0.5)
    )  # fmt: skip
    profiles = [questions[0]["profile"] for questions, _ in (still, changing)]
    assert profiles[0][:12] == profiles[1][:12]
    assert profiles[0][12:] != profiles[1][12:]
    assert [item.keys() for item in profiles[0]] == [item.keys() for item in profiles[1]]


def test_the_more_years_and_the_more_drift_the_more_of_a_user_has_changed():
    config = WorldConfig(drift=0.2)
    changed = dict.fromkeys((1, 4), 0.0)
    for number in range(20):
        person = world.MAKERS["lamp_4"](random.Random(number))
        people = world._years("lamp_4", number, person, 60, config)
        for year in changed:
            now, then = people[year].vocabulary.favourites, person.vocabulary.favourites
            changed[year] += sum(now[c] != then[c] for c in then) / len(then) / 20
    # of three synonyms a new favourite is often the old one
    assert 0.05 < changed[1] < 0.2
    assert 1.5 * changed[1] < changed[4] < 1 - 0.8**4
    assert world._years("lamp_4", 0, person, 60, WorldConfig()) == [person] * 5


def test_nobody_knows_what_a_user_who_changes_would_answer():
    text = "it follows the robot. it is set in the city."
    assert world.answer("lamp_2", "200000", WorldConfig(), text) == "sci-fi"
    assert world.answer("lamp_2", "200000", WorldConfig(drift=0.1), text) is None


@pytest.mark.parametrize("task", ALL_TASKS)
def test_answers_are_official_labels_and_no_query_stands_in_the_profile(tmp_path, task):
    questions, outputs = written(tmp_path, task)
    answers = {gold["output"] for gold in outputs["golds"]}
    if TASKS[task].labels:
        assert answers <= set(TASKS[task].labels)
    for question in questions:
        _, marker, asked = question["input"].partition(TASKS[task].query_before)
        assert marker
        profile = [value for item in question["profile"] for value in item.values()]
        assert not any(asked == value for value in profile)


def test_histories_are_skewed_towards_short_ones(tmp_path):
    config = WorldConfig(population=200, queries_per_user=5, history_min=8, history_max=48)
    questions, _ = written(tmp_path, "lamp_3", config)
    lengths = [len(question["profile"]) for question in questions]
    assert sum(length < 18 for length in lengths) > len(lengths) / 2
    assert max(lengths) > 40


def test_users_differ_in_the_tag_they_give_to_the_same_film():
    rng = random.Random(0)
    people = [world.MAKERS["lamp_2"](random.Random(seed)) for seed in range(40)]
    tags = Counter(person.record(rng).answer for person in people for _ in range(20))
    assert set(tags) == set(TASKS["lamp_2"].labels)
    favourites = Counter(
        Counter(person.record(rng).answer for _ in range(40)).most_common(1)[0][0]
        for person in people
    )
    assert len(favourites) > 5


@pytest.mark.parametrize("domain", world.DOMAINS, ids=lambda domain: domain.name)
def test_every_word_of_a_domain_has_one_meaning(domain):
    words = [w for concepts in domain.lexicon.values() for entry in concepts for w in entry]
    literal = {
        word.rstrip(",")
        for frame in domain.frames
        for pattern in frame.patterns
        for word in grammar.SLOT.sub("", pattern).split()
    }
    others = [other for spellings in domain.spellings.values() for other in spellings]
    assert len(set(words)) == len(words)
    assert literal.isdisjoint(words)
    assert len({*words, *literal, *others}) == len(words) + len(literal) + len(others)


@pytest.mark.parametrize("domain", world.DOMAINS, ids=lambda domain: domain.name)
def test_every_wording_is_read_back_into_its_fact(domain):
    rng = random.Random(0)
    for frame in domain.frames:
        for pattern in range(len(frame.patterns)):
            fact = grammar.Fact(frame.name, tuple(domain.draw(s, rng) for s in frame.slots))
            said = domain.say(fact, pattern, domain.any_word(rng))
            assert domain.read(said.text) == said


@pytest.mark.parametrize("task", ALL_TASKS)
def test_a_paraphrase_states_the_same_facts_in_other_words(tmp_path, task):
    texts = texts_of(task, written(tmp_path, task)[0])
    changed = 0
    for number, text in enumerate(texts):
        other = world.paraphrase(text, number)
        domain = grammar.best_domain(world.DOMAINS, text)
        before, after = (grammar.facts_of(grammar.read_text(domain, t)) for t in (text, other))
        assert Counter(before) == Counter(after)
        assert 0.5 < len(other) / len(text) < 2
        changed += other != text
    assert changed > 0.9 * len(texts)
    assert world.paraphrase(texts[0], 7) == world.paraphrase(texts[0], 7)


def test_a_paraphrase_of_a_tweet_keeps_opening_hashtag_and_spelling():
    tweet = "ugh. da weather iz so great ya know. my plan iz jogging tonight. xoxo #mood."
    other = world.paraphrase(tweet, 3)
    assert other.startswith("ugh. ")
    assert other.endswith(". xoxo #mood.")
    assert not {"the", "is", "you"} & set(other.replace(".", "").split())


def test_text_from_elsewhere_is_left_alone():
    text = "Call me Ishmael. Some years ago, never mind how long."
    assert world.paraphrase(text, 0) == text
    assert not world.knows([text])


def test_nli_pairs_have_the_meaning_that_their_label_says(tmp_path):
    texts = texts_of("lamp_4", written(tmp_path, "lamp_4")[0])
    pairs = world.nli_pairs(texts, seed=0, n=300)
    assert Counter(label for _, _, label in pairs) == dict.fromkeys(world.LABELS, 100)
    domain = grammar.best_domain(world.DOMAINS, texts[0])
    for premise, hypothesis, label in pairs:
        known, told = (
            set(grammar.facts_of(grammar.read_text(domain, t))) for t in (premise, hypothesis)
        )
        frames = {fact.frame for fact in known}
        if label == "entailment":
            assert told <= known
        elif label == "neutral":
            assert told - known
            assert not {f.frame for f in told - known} & frames
        else:
            assert any(fact not in known and fact.frame in frames for fact in told)


def test_nli_pairs_of_foreign_text_name_the_key_to_give():
    with pytest.raises(ConfigError, match=r"model\.build\.nli_data"):
        world.nli_pairs(["Call me Ishmael."], seed=0, n=3)


def test_synonyms_are_mutual():
    thesaurus = world.synonyms()
    assert thesaurus["robot"] == ("android", "cyborg")
    assert all(word in thesaurus[other] for word, others in thesaurus.items() for other in others)


def test_a_task_without_a_world_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="lamp_6"):
        world.write_world(tmp_path, "lamp_6", SMALL)


def test_a_history_range_that_is_upside_down_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="history_min"):
        world.write_world(tmp_path, "lamp_2", WorldConfig(history_min=9, history_max=8))


MARKS = {"lamp_2": "description: ", "lamp_3": "review: "}


@pytest.mark.parametrize("task", MARKS)
def test_the_world_knows_what_its_users_answer(tmp_path, task):
    config = WorldConfig(population=4, history_min=8, history_max=9, queries_per_user=5)
    world.write_world(tmp_path, task, config)
    folder = tmp_path / f"LaMP_{task[-1]}"
    questions = json.loads((folder / "dev_questions.json").read_text())
    golds = json.loads((folder / "dev_outputs.json").read_text())["golds"]
    answers = {gold["id"]: gold["output"] for gold in golds}
    for question in questions:
        asked = question["input"].rpartition(MARKS[task])[2]
        found = world.answer(task, question["user_id"], config, asked)
        assert found == answers[question["id"]]
        reworded = world.paraphrase(asked, seed=3)
        assert world.answer(task, question["user_id"], config, reworded) == found
        assert world.same_facts(asked, reworded) is True
    assert world.answer(task, questions[0]["user_id"], config, "no words of the world") is None
    assert world.answer("lamp_4", "400000", config, "anything") is None


def test_a_changed_fact_is_not_the_same():
    first = "it is set in the city. it follows the robot."
    assert world.same_facts(first, "the town is the scene. we meet the android.") is True
    assert world.same_facts(first, "the town is the scene. we meet the clown.") is False
    assert world.same_facts(first, "the town is the scene.") is False
    assert world.same_facts("hello there", first) is None
