from __future__ import annotations

import pytest

from lamp.contamination import given_away, kept_apart, normalised, person_notes
from lamp.records import Pair, ProfileItem, Query, UserHistory
from lamp.tasks import TASKS

ASKS = "Generate a headline for the following article: "


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("It rains, again.", "it  RAINS\nagain"),
        ("“Stra\u00dfe” — closed!", "STRASSE closed"),
        ("\ufb01ne\u00a0print", "fine print"),  # a ligature, a no-break space
        ("a-b_c\u0000d", "A B C D"),
        ("¡Mañana!", "MAN\u0303ANA"),
        ("...", " ... "),
    ],
)
def test_case_punctuation_and_white_space_do_not_tell_texts_apart(text, same):
    assert normalised(text) == normalised(same)


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("5 stars", "4 stars"),
        ("bravo 👍", "bravo 👎"),
        ("कि", "की"),  # two vowel signs
        ("...", "!!!"),
        ("2 > 1", "2 < 1"),
        ("resume", "résumé"),
    ],
)
def test_letters_marks_digits_and_symbols_do(text, other):
    assert normalised(text) != normalised(other)


def test_a_query_that_differs_in_punctuation_alone_is_given_away():
    item = ProfileItem("i", {"text": "Rain, all day!", "title": "Wet"})
    queries = (Query("q", ASKS + "rain ALL day", "x"), Query("r", ASKS + "rain all night", "x"))
    user = UserHistory("u", (item,), (Pair("i", "Rain, all day!", "Wet"),), queries)
    assert given_away(user, TASKS["lamp_4"]) == ("q",)


def user(name, *texts, asks=(), task="lamp_4"):
    """A user with a record per text, titled by itself, and a query per text asked."""
    field = TASKS[task].input_field
    items = tuple(ProfileItem(f"{name}{n}", {field: text}) for n, text in enumerate(texts))
    title = "" if not TASKS[task].response_field else "title of "
    pairs = tuple(
        Pair(each.id, each.fields[field], title and title + each.fields[field]) for each in items
    )
    before = TASKS[task].query_before
    queries = tuple(
        Query(f"{name}-q{n}", before + text, f"gold {n}") for n, text in enumerate(asks)
    )
    return UserHistory(name, items, pairs, queries)


def apart(public, private, task="lamp_4", max_words=768):
    return kept_apart(public, private, TASKS[task], max_words)


def test_public_users_lose_what_a_private_user_has_or_is_asked():
    private = user("t", "Mine.", asks=["My question?"])
    public = [
        user("p", "MINE", "my question", "own", asks=["mine", "my question", "another"]),
        user("q", "other"),
        user("r", "mine!", asks=["free"]),
    ]
    part = apart(public, [private])
    assert [each.user_id for each in part.users] == ["p", "q"]
    assert [pair.input for pair in part.users[0].pairs] == ["own"]
    assert [item.id for item in part.users[0].profile] == ["p2"]
    assert [query.id for query in part.users[0].queries] == ["p-q2"]
    assert part.users[1] is public[1]
    assert (part.records, part.queries, part.emptied) == (3, 2, 1)
    (note,) = part.notes()
    assert "3 left out, and 2 of their queries; users left out with their last record: 1" in note


def test_nothing_in_common_changes_nothing():
    public = (user("p", "own", asks=["what"]),)
    part = apart(public, [user("t", "mine", asks=["my question"])])
    assert part.users == public
    assert not tuple(part.notes())


def test_a_question_is_compared_up_to_where_records_are_cut():
    part = apart(
        [user("p", "one two", "three")], [user("t", "mine", asks=["one two 3 4"])], max_words=2
    )
    assert [pair.input for pair in part.users[0].pairs] == ["three"]


def test_a_tweet_that_is_asked_for_leaves_the_public_users():
    private = user("t", "mine", asks=["what I mean"], task="lamp_7")
    public = [user("p", "Gold 0", "own", asks=["x"], task="lamp_7")]
    part = apart(public, [private], task="lamp_7")
    assert [pair.input for pair in part.users[0].pairs] == ["own"]
    assert not part.users[0].queries  # its own gold answer is the target user's, too


def test_histories_that_users_share_are_noticed():
    users = [user("a", "x", "y", "z"), user("b", "X!", "y"), user("c", "x", "w"), user("d", "v")]
    (note,) = person_notes(users)
    assert "with another user: 2 of 4; one person may stand under several ids" in note
    assert not tuple(person_notes(users[1:]))  # one record in common is nothing


def test_what_everybody_has_tells_no_two_users_apart():
    everybody = [user(f"u{number}", "x", "y") for number in range(30)]
    assert not tuple(person_notes(everybody))
