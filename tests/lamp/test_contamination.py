from __future__ import annotations

import pytest

from lamp.contamination import given_away, normalised
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
