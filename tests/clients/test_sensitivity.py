"""The rules find what they name and leave the rest alone."""

from __future__ import annotations

import pytest

from clients.sensitivity import HARMFUL_WORDS, WEIGHTS, findings, redacted, sensitivity
from lamp.records import Pair


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("write to ann.b+x@mail.example.org now", [("e-mail", "ann.b+x@mail.example.org")]),
        ("call 650-253-0000 today", [("phone", "650-253-0000")]),
        ("ring +44 20 7946 0958", [("phone", "+44 20 7946 0958")]),
        ("@ann_b saw it", [("handle", "@ann_b")]),
        ("https://a.org/x?y=1, www.b.com", [("url", "https://a.org/x?y=1"), ("url", "www.b.com")]),
        ("Dr. Mary Baker and my name is Tom", [("name", "Mary Baker"), ("name", "Tom")]),
        ("He wants to Kill time", [("harmful", "Kill")]),
        ("skills, 3.5 stars, 2024-05-06, 12:30, room 101, isbn 9783161484100", []),
        ("the doctor came, mr", []),
        ("", []),
    ],
)  # fmt: skip
def test_findings(text, expected):
    assert [(each.kind, text[each.start : each.end]) for each in findings(text)] == expected


def test_an_address_counts_once():
    assert [each.kind for each in findings("https://ann@mail.org/www.a.org")] == ["e-mail"]


def test_redaction_keeps_the_rest_of_the_text():
    assert redacted("mail a@b.org, or @ann!") == ("mail [e-mail], or [handle]!", 2)
    assert redacted("nothing here") == ("nothing here", 0)


def test_both_fields_count_by_their_weights():
    pair = Pair("1", "mail a@b.org", "see www.a.org")
    assert sensitivity(pair) == WEIGHTS["e-mail"] + WEIGHTS["url"]
    assert sensitivity(Pair("2", "a quiet film", "")) == 0


def test_every_harmful_word_is_found():
    assert all(findings(word)[0].kind == "harmful" for word in HARMFUL_WORDS)
