"""BM25 finds the user's own records; LaMP's wordings and budget put them into the prompt."""

from __future__ import annotations

import math

import pytest

from lamp.records import Pair, Query
from lamp.retrieval import nearest, prompt_with_items, ranked
from lamp.tasks import TASKS

PAIRS = (
    Pair("1", "cats sleep all day", "on cats"),
    Pair("2", "dogs bark at night and dogs run", "on dogs"),
    Pair("3", "a day in the sun", "sun"),
)


class Words:
    """Tokens are words parted by blanks."""

    def encode(self, text, *, add_special_tokens):
        self.words = getattr(self, "words", []) + text.split()
        first = len(self.words) - len(text.split())
        return list(range(first, len(self.words)))

    def decode(self, token_ids):
        return " ".join(self.words[each] for each in token_ids)


def query(name: str, text: str) -> Query:
    task = TASKS[name]
    return Query("q", f"{task.query_before}{text}{task.query_after}", "gold")


def prompt(name: str, pairs=PAIRS[:2], items=2, max_tokens=1000, text="dogs") -> str:
    made = prompt_with_items(
        TASKS[name], query(name, text), pairs, Words(), items=items, max_tokens=max_tokens
    )
    assert made.text == text  # what a prompt that is too long loses first
    return str(made)


def test_the_order_is_that_of_bm25_computed_by_hand():
    def score(words: list[str], term: str) -> float:
        found = [text.split() for text in corpus]
        holding = sum(term in each for each in found)
        idf = math.log(1 + (len(found) - holding + 0.5) / (holding + 0.5))
        mean = sum(map(len, found)) / len(found)
        often = words.count(term)
        return idf * often * 2.5 / (often + 1.5 * (0.25 + 0.75 * len(words) / mean))

    corpus = [f"{pair.response} {pair.input}" for pair in PAIRS]
    totals = [sum(score(text.split(), term) for term in ("day", "sun")) for text in corpus]
    expected = sorted(range(3), key=lambda place: -totals[place])
    assert ranked(TASKS["lamp_4"], query("lamp_4", "day sun"), PAIRS) == expected


def test_the_nearest_records_of_others_are_taken_in_turns_and_none_twice():
    task, own = TASKS["lamp_4"], (Pair("a", "dogs bark", ""), Pair("b", "dogs run", ""))
    others = (
        Pair("o1", "a day in the sun", "sun"),
        Pair("o2", "dogs bark and run", "dogs"),
        Pair("o3", "some dogs run", "dogs"),
    )
    ids = [[pair.id for pair in found] for found in nearest(task, own, others, 2)]
    assert ids == [["o2", "o1"], ["o3"]]  # a's second choice goes before b's; nothing is left
    assert nearest(task, own, others, 1) == [[others[1]], [others[2]]]
    assert nearest(task, own, (), 2) == [[], []]
    assert nearest(task, (), others, 2) == []


def test_labels_are_not_searched():
    pairs = (Pair("1", "a film", "war"), Pair("2", "war and peace", "classic"))
    assert ranked(TASKS["lamp_2"], query("lamp_2", "war"), pairs) == [1, 0]


def test_records_without_a_common_word_keep_their_order():
    assert ranked(TASKS["lamp_4"], query("lamp_4", "zebra"), PAIRS) == [0, 1, 2]
    assert ranked(TASKS["lamp_4"], query("lamp_4", "zebra"), ()) == []


@pytest.mark.parametrize(
    ("name", "beginning"),
    [
        ("lamp_2", 'the tag for the movie: "dogs bark'),
        ("lamp_3", 'on dogs is the score for "dogs bark at night and dogs run", and on cats'),
        ("lamp_4", '"on dogs" is the title for "dogs bark at night and dogs run", and "on cats"'),
        ("lamp_5", '"on dogs" is the title for "dogs bark'),
        ("lamp_7", '"dogs bark at night and dogs run", and "cats sleep all day" are written by'),
    ],
)
def test_the_wordings_are_lamps_and_the_query_stands_last(name, beginning):
    made = prompt(name)
    assert made.startswith(beginning)
    assert made.endswith(query(name, "dogs").input)


def test_citation_choice_gets_further_titles_behind_the_papers_own():
    task = TASKS["lamp_1"]
    asked = Query("q", f'{task.query_before}X{task.query_after} [1]: "dogs" [2]: "y"', "[1]")
    parts = prompt_with_items(task, asked, PAIRS[:2], Words(), items=1, max_tokens=99)
    assert parts.text == "X"
    made = str(parts)
    assert made.startswith('written the paper with the title "X", and "on dogs", which reference')


def test_the_budget_is_split_evenly_and_what_one_leaves_goes_to_the_next():
    # lamp_7: an item is its text in quotes, which count as a word: 8 tokens are 3 words and then 4
    assert prompt("lamp_7", max_tokens=8).startswith('"dogs bark at", and "cats sleep all day" are')
    short_first = (Pair("1", "dogs", ""), Pair("2", "dogs bark at night and run", ""))
    made = prompt("lamp_7", short_first, max_tokens=7)
    assert made.startswith('"dogs", and "dogs bark at night and" are')


def test_no_room_or_no_items_leaves_the_plain_prompt():
    plain = query("lamp_4", "dogs").input
    assert prompt("lamp_4", max_tokens=4) == plain
    assert prompt("lamp_4", items=0) == plain
    assert prompt("lamp_4", pairs=()) == plain


def test_braces_in_a_users_text_stay_text():
    assert '"a {title} b"' in prompt("lamp_4", (Pair("1", "a {title} b", "t"),))
