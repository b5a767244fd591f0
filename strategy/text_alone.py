"""Read a reply that should be a text alone, such as a paraphrase of the shared input.

The principle is that of :mod:`strategy.parsing`: what announces the text or trails it is no part of
it, and where it is not clear what is, there is no text.
"""

from __future__ import annotations

import re

from lamp import reading
from lamp.tasks import TASKS
from strategy.markers import find_markers
from strategy.parsing import (
    CUT_OFF,
    EMPTY_INPUT,
    NO_INPUT,
    REWORDED,
    TALK,
    UNCLEAR,
    UNCLOSED,
    WORD,
    Parsed,
    answer_in,
    ends_text,
    read_markers,
)

MAX_PREAMBLES = 3
MAX_PREAMBLE = 200  # characters of an announcement that are looked at
_BLANK_LINES = re.compile(r"\n[ \t]*\n\s*")
_FIRST_OF_LIST = re.compile(r"[ \t*_]{0,4}(?:1[.)]|[-*•])[ \t]{1,4}")
_SECOND_OF_LIST = re.compile(r"[ \t*_]{0,4}(?:2[.)]|[-*•])[ \t]{1,4}")
# What announces a text, as the last words of a line that ends in a colon, or as a label.
_ABOUT_TEXT = re.compile(
    rf"\b(?:{REWORDED}|text|version|sentence|structure|wording|words|here|sure|certainly)\b",
    re.IGNORECASE,
)
_LABEL = re.compile(
    rf"[\W\d]{{0,6}}(?:\w{{1,12}} ){{0,2}}{REWORDED}(?: (?:text|version|sentence)){{0,1}}"
    r"(?: \(?\d{1,2}\)?)?[*_ ]{0,4}[:：][*_]{0,3}",
    re.IGNORECASE,
)
_ANNOUNCES = re.compile(
    rf".{{0,120}}\b(?:{REWORDED}|original (?:text|sentence)|same meaning|sentence structure)\b"
    r".{0,80}:",
    re.IGNORECASE,
)
_TEXT_ALONE = TASKS["lamp_7"]


def parse_text(text: str, complete: bool = True) -> Parsed:
    """Read a reply that should be a text alone: a paraphrase of the shared input.

    A line in front that announces the text and ends in a colon is no part of it, nor are remarks
    behind it. A reply in the form of a pair gives its input.
    """
    body, complete = answer_in(text, complete)
    if body is None:
        return Parsed(reason=NO_INPUT if complete else CUT_OFF)
    body = reading.without_fences(body)
    if any(each.kind == "input" and each.leads for each in find_markers(body).all):
        return read_markers(_TEXT_ALONE, body, complete)
    body = _without_preamble(body)
    form = body[:1]
    if form == "{":  # an object of some kind
        return Parsed(reason=UNCLEAR)
    if form in reading.SQUARE:
        end = reading.matched(body).get(0)
        if end is None:
            return Parsed(reason=UNCLOSED if complete else CUT_OFF)
        if not WORD.search(body[end + 1 :].partition("\n")[0]):
            return _text_only(body[1:end])
    text, behind = _paragraph(body)
    if form in reading.QUOTES and (inner := reading.unwrap(text)) != text:
        return _text_only(inner)
    if not behind and not complete:
        return Parsed(reason=CUT_OFF)
    talks = any(TALK.match(line) for line in text.split("\n")[1:])
    if talks or _ANNOUNCES.match(text) or not ends_text(behind):
        return Parsed(reason=UNCLEAR)
    return _text_only(text)


def _text_only(text: str) -> Parsed:
    text = reading.unwrap(text)
    return Parsed(reason=EMPTY_INPUT) if reading.is_blank(text) else Parsed(input=text)


def _without_preamble(body: str) -> str:
    """Drop what announces a text: whole lines that end in a colon, or a label in front of it."""
    body = body.strip()
    for _ in range(MAX_PREAMBLES):
        line, _, rest = body.partition("\n")
        if line.rstrip(" *_#").endswith((":", "：")) and _ABOUT_TEXT.search(line[-MAX_PREAMBLE:]):
            body = rest.strip()
        elif label := _LABEL.match(body):
            body = body[label.end() :].strip()
        else:
            break
    return body


def _paragraph(body: str) -> tuple[str, str]:
    """The first paragraph, or a first numbered line; and what stands behind it."""
    if _FIRST_OF_LIST.match(body):
        line, _, behind = body.partition("\n")
        if _SECOND_OF_LIST.match(behind.strip()):
            return _FIRST_OF_LIST.sub("", line, count=1).strip(), ""
    parts = _BLANK_LINES.split(body, maxsplit=1)
    return parts[0].strip(), parts[1].strip() if len(parts) > 1 else ""
