"""Where a reply says "Input" and "Response": the markers that the fields of a pair stand behind.

A marker is the word with a colon, or alone as a heading. Around it are tolerated: list marks,
Markdown, quotes, a number ("Input 1:"), a remark ("Input (paraphrased):"), a second language, and
a few words in front ("New Input:"). Every pattern is bounded, so finding them takes linear time.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal

Kind = Literal["input", "response"]

_MARKER = re.compile(
    r"""
    (?<![^\W_]) (?P<kind>input|response|output) (?![^\W_])
    [ \t]{0,2} (?:text|pair)? [ \t]{0,2} \#? (?P<number>\d{0,3})
    (?: [ \t]{0,2} (?: \( [^()\n]{0,40} \) | / [ \t]? \w{1,20} ) )?
    (?: (?P<colon> ["'*_`\]]{0,4} [ \t]{0,3} [:：] ["*_`]{0,3} )
      | ["'*_`:]{0,4} [ \t]{0,3} (?= \n | \Z ) )
    """,
    re.IGNORECASE | re.VERBOSE,
)
_WORD = (
    "(?:the|a|an|my|your|user|model|assistant|new|first|second|similar|example|sample|original"
    "|paraphrased|rephrased|reworded|rewritten|revised|generated|alternative|corresponding)"
)
_MARKS = r"""[ \t>#*_`"'{\[(•·|+-]{0,12}"""
_NUMBER = r"(?:\(?\d{1,3}[.):]|[a-z][.)])?"
_BEFORE = re.compile(
    rf"{_MARKS}{_NUMBER}{_MARKS}(?:\w{{1,15}}:[ ]?)?{_MARKS}(?:{_WORD}[ ]){{0,3}}{_MARKS}",
    re.IGNORECASE,
)
_HEADING = re.compile(
    r"[ \t>]{0,6}(?:\#{1,6}|\*{1,3}|_{1,3}|\d{1,3}[.)])[ \t*_]{0,4}" rf"(?:{_WORD}[ ]){{0,2}}",
    re.IGNORECASE,
)
MOST = 512
_LONGEST_BEFORE = 60
_OPENING_MARKS = "\"'*_`#[("
_ENDS_OF_SENTENCE = ".,;:!?。，；：！？)]}\"'”’»*_`|"


@dataclass(frozen=True, slots=True)
class Marker:
    """One place that names a field.

    Attributes:
        kind: Which field.
        start: Where what belongs to it begins, marks in front included.
        end: Where its field begins.
        leads: Whether it begins a line.
        stands_out: Whether it leads, or a capital or the end of a sentence sets it off.
        ends_sentence: Whether the end of a sentence stands in front of it.
        is_output: Whether it says "output" for "response".
        number: Its number, as in "Input 2:"; "" for none.
        quoted: Whether it is a key in quotes, as in JSON.
    """

    kind: Kind
    start: int
    end: int
    leads: bool
    stands_out: bool
    ends_sentence: bool
    is_output: bool
    number: str
    quoted: bool


@dataclass(frozen=True)
class Markers:
    """The markers of one reply, in order.

    Attributes:
        all: The first :data:`MOST` of them.
        limit: Where the next one begins: what stands behind is not looked at. None for no more.
    """

    all: tuple[Marker, ...]
    limit: int | None = None

    def between(self, start: int, end: int) -> list[Marker]:
        """Markers that begin at or behind ``start`` and in front of ``end``."""
        first = bisect_left(self.all, start, key=lambda each: each.start)
        last = bisect_left(self.all, end, key=lambda each: each.start)
        return list(self.all[first:last])


def find_markers(text: str) -> Markers:
    """Find the markers of a cleaned reply."""
    found = tuple(islice(_markers(text), MOST + 1))
    limit = found[MOST].start if len(found) > MOST else None
    return Markers(found[:MOST], limit)


def _markers(text: str) -> Iterator[Marker]:
    line_start = 0
    for found in _MARKER.finditer(text):
        line_start = max(line_start, text.rfind("\n", line_start, found.start()) + 1)
        before = text[max(line_start, found.start() - _LONGEST_BEFORE) : found.start()]
        whole = found.start() - line_start <= _LONGEST_BEFORE
        leads = whole and _BEFORE.fullmatch(before) is not None
        if found["colon"] is None and not (whole and _HEADING.fullmatch(before)):
            continue
        ends_sentence = before.rstrip()[-1:] in _ENDS_OF_SENTENCE
        capital = found["kind"][0].isupper()
        yield Marker(
            kind="input" if found["kind"].lower() == "input" else "response",
            start=line_start if leads else found.start() - _marks_at_end(before),
            end=found.end(),
            leads=leads,
            stands_out=leads or capital or ends_sentence,
            ends_sentence=ends_sentence,
            is_output=found["kind"].lower() == "output",
            number=found["number"],
            quoted=before[-1:] in ("'", '"') and (found["colon"] or "")[:1] == before[-1:],
        )


def _marks_at_end(before: str) -> int:
    return len(before) - len(before.rstrip(_OPENING_MARKS))
