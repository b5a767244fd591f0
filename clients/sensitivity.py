"""How sensitive a text is: documented rules, all on the device.

A rule finds spans of one kind. The kinds, and how much a finding weighs when records are ordered:

    e-mail   3   one @ between a local part and a domain
    phone    3   what the phonenumbers library takes for a valid number: international ones, and
                 national ones as they are written in the United States
    name     2   a title with a capitalised word ("Dr. Baker"), or "my name is ..."
    handle   2   @ and a user name, as in tweets
    harmful  2   one of :data:`HARMFUL_WORDS`
    url      1   http(s)://..., www....

The weights are ours (docs/assumptions.md). Bare names ("Alice came by") are not found: no kept
library finds them offline without a downloaded model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import phonenumbers

from lamp.records import Pair

PHONE_REGION = "US"  # whose national numbers are known; numbers with + are found everywhere
HARMFUL_WORDS = (
    "abuse", "abused", "assault", "bastard", "bitch", "bomb", "cocaine", "cunt", "fuck", "fucking",
    "heroin", "kill", "killed", "meth", "molest", "murder", "nazi", "overdose", "rape", "raped",
    "self-harm", "shit", "slut", "suicidal", "suicide", "terrorist", "torture", "whore",
)  # fmt: skip
WEIGHTS = {"e-mail": 3, "phone": 3, "name": 2, "handle": 2, "harmful": 2, "url": 1}

_EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_URL = re.compile(r"(?:https?://|www\.)[^\s<>\"']+[^\s<>\"'.,;:!?)]", re.IGNORECASE)
_HANDLE = re.compile(r"(?<![\w@.])@\w{2,30}")
_HARMFUL = re.compile(rf"\b(?:{'|'.join(map(re.escape, HARMFUL_WORDS))})\b", re.IGNORECASE)
_WORD = r"[A-Z][\w'-]+(?:\s[A-Z][\w'-]+){0,2}"
_NAME = re.compile(
    rf"\b(?:(?:Mr|Mrs|Ms|Miss|Dr|Prof|Sir|Lady)\.?\s+|[Mm]y name is\s+|I am called\s+)({_WORD})"
)


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One sensitive span of a text: characters ``start`` to ``end``."""

    start: int
    end: int
    kind: str


def findings(text: str) -> tuple[Finding, ...]:
    """Find all sensitive spans, from left to right; where two overlap, the earlier rule's stays."""
    found: list[Finding] = []
    for kind, rule in _RULES.items():
        for start, end in rule(text):
            if all(end <= other.start or other.end <= start for other in found):
                found.append(Finding(start, end, kind))
    return tuple(sorted(found))


def redacted(text: str) -> tuple[str, int]:
    """Put ``[kind]`` in the place of every finding, and count them."""
    found = findings(text)
    for each in reversed(found):
        text = f"{text[: each.start]}[{each.kind}]{text[each.end :]}"
    return text, len(found)


@lru_cache(maxsize=4096)
def sensitivity(pair: Pair) -> int:
    """The weights of all findings in both fields, added up; 0 is harmless."""
    return sum(
        WEIGHTS[each.kind] for text in (pair.input, pair.response) for each in findings(text)
    )


def _matches(
    pattern: re.Pattern[str], group: int = 0
) -> Callable[[str], Iterable[tuple[int, int]]]:
    return lambda text: (match.span(group) for match in pattern.finditer(text))


def _phone_numbers(text: str) -> Iterator[tuple[int, int]]:
    for match in phonenumbers.PhoneNumberMatcher(text, PHONE_REGION):
        yield match.start, match.end


_RULES: dict[str, Callable[[str], Iterable[tuple[int, int]]]] = {
    "e-mail": _matches(_EMAIL),
    "url": _matches(_URL),
    "phone": _phone_numbers,
    "handle": _matches(_HANDLE),
    "name": _matches(_NAME, 1),
    "harmful": _matches(_HARMFUL),
}
