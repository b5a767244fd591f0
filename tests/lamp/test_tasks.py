from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf.errors import ConfigError, DataError
from conf.schema import TaskConfig
from lamp.records import Pair, ProfileItem, Prompt, Query
from lamp.tasks import (
    TASKS,
    as_prompt,
    cut_words,
    make_pair,
    query_text,
    task,
    training_example,
    training_prompt,
)

PAPER = ProfileItem("p", {"title": "On {x}", "abstract": "We do.", "citation": "A and B"})
CHOICE = (
    'For an author who has written the paper with the title "Of "mice", and men", which reference '
    'is related? Just answer with [1] or [2] without explanation. [1]: "Cats" [2]: "Dogs"'
)


def lamp_1(pair: str):
    return task(TaskConfig(name="lamp_1", pair=pair, max_new_tokens=4))


def test_the_six_tasks_have_lamps_names_labels_and_fields():
    assert {name: each.official for name, each in TASKS.items()} == {
        "lamp_1": "LaMP_1",
        "lamp_2": "LaMP_2",
        "lamp_3": "LaMP_3",
        "lamp_4": "LaMP_4",
        "lamp_5": "LaMP_5",
        "lamp_7": "LaMP_7",
        "dialogue": "Dialogue",
    }
    assert TASKS["lamp_1"].labels == ("[1]", "[2]")
    assert len(TASKS["lamp_2"].labels) == 15
    assert TASKS["lamp_3"].pair_labels == ("1", "2", "3", "4", "5")
    assert TASKS["lamp_4"].fields == ("text", "title")
    assert TASKS["lamp_7"].fields == ("text",)


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        (
            "default",
            ("Generate a title for the following abstract of a paper: We do.", "On {x}"),
        ),
        (
            "abstract_to_title",
            ("Generate a title for the following abstract of a paper: We do.", "On {x}"),
        ),
        ("title_to_abstract", ("Write an abstract for this title: On {x}", "We do.")),
        ("citation", ("paper title: On {x} reference:", "A and B")),
    ],
)
def test_a_paper_becomes_the_chosen_pair(pair, expected):
    chosen = lamp_1(pair)
    assert chosen.pair_labels == ()
    assert training_prompt(chosen, make_pair(chosen, PAPER, max_words=100)) == expected


def test_only_lamp_1_has_several_kinds_of_pairs():
    with pytest.raises(ConfigError, match=r"task\.pair: expected 'default' for lamp_4"):
        task(TaskConfig(name="lamp_4", pair="citation", max_new_tokens=4))


def test_a_pair_without_its_field_names_item_and_field():
    with pytest.raises(DataError, match=r"'p'.*'citation' is missing"):
        make_pair(lamp_1("citation"), ProfileItem("p", {"title": "T", "abstract": "A"}), 9)


def test_a_movie_is_asked_about_in_the_official_words():
    prompt, completion = training_prompt(TASKS["lamp_2"], Pair("i", "A dog runs.", "comedy"))
    assert prompt == (
        "Which tag does this movie relate to among the following tags? Just answer with the tag "
        "name without further explanation. tags: [sci-fi, based on a book, comedy, action, twist "
        "ending, dystopia, dark comedy, classic, psychology, fantasy, romance, thought-provoking, "
        "social commentary, violence, true story] description: A dog runs."
    )
    assert completion == "comedy"


def test_a_tweet_is_trained_as_plain_text():
    pair = make_pair(TASKS["lamp_7"], ProfileItem("t", {"text": "so tired :("}), max_words=100)
    assert pair == Pair("t", "so tired :(", "")
    assert training_prompt(TASKS["lamp_7"], pair) == ("tweet:", "so tired :(")


@pytest.mark.parametrize("name", ["lamp_2", "lamp_3", "lamp_4", "lamp_5"])
@given(text=st.text())
def test_the_text_comes_out_of_a_query_as_it_went_in(name, text):
    prompt, _ = training_prompt(TASKS[name], Pair("i", text, ""))
    assert query_text(TASKS[name], Query("q", prompt, "gold")) == text


def test_the_text_of_a_citation_choice_is_the_title_even_with_quotes_in_it():
    assert query_text(TASKS["lamp_1"], Query("q", CHOICE, "[1]")) == 'Of "mice", and men'


@pytest.mark.parametrize("name", [name for name in TASKS if name != "dialogue"])
def test_a_query_in_other_words_is_refused_without_quoting_it(name):
    with pytest.raises(DataError, match="question 'q17', field 'input'") as error:
        query_text(TASKS[name], Query("q17", "Tell me about my secret", "gold"))
    assert "secret" not in str(error.value)


def test_a_citation_choice_without_its_end_is_refused():
    query = Query("q", 'written the paper with the title "Half', "[1]")
    with pytest.raises(DataError, match="official wording of LaMP_1"):
        query_text(TASKS["lamp_1"], query)


@pytest.mark.parametrize(
    ("text", "max_words", "expected"),
    [
        ("one  two\nthree", 3, "one  two\nthree"),
        (" one  two\nthree \n", 3, " one  two\nthree \n"),  # white space is no word
        ("one  two\nthree", 2, "one  two"),
        ("one", 1, "one"),
        ("", 1, ""),
        (" \n", 1, " \n"),
    ],
)
def test_a_text_is_cut_after_a_word_and_otherwise_left_alone(text, max_words, expected):
    assert cut_words(text, max_words) == expected


@given(text=st.text(), max_words=st.integers(1, 5))
def test_a_cut_text_is_a_beginning_with_the_first_words(text, max_words):
    cut = cut_words(text, max_words)
    assert text.startswith(cut)
    assert cut.split() == text.split()[:max_words]


def test_both_fields_of_a_pair_are_cut():
    item = ProfileItem("n", {"text": "a b c", "title": "d e f"})
    assert make_pair(TASKS["lamp_4"], item, max_words=2) == Pair("n", "a b", "d e")


@pytest.mark.parametrize("name", sorted(TASKS))
def test_a_prompt_in_parts_is_the_prompt_and_its_text_stands_apart(name):
    task = TASKS[name]
    asked = f"{task.query_before}a text {{x}}{task.query_after}"
    prompt = as_prompt(task, asked)
    assert str(prompt) == asked
    assert prompt.text == "a text {x}"
    pair = Pair("i", "a text {x}", "y")
    trained, completion = training_example(task, pair)
    assert (str(trained), completion) == training_prompt(task, pair)
    assert trained.text == ("" if name == "lamp_7" else "a text {x}")


def test_a_prompt_in_another_wording_is_all_text():
    assert as_prompt(TASKS["lamp_4"], "Write a headline: x") == Prompt("", "Write a headline: x")
