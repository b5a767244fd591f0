"""Read a similar pair out of what the cloud model wrote, or say why there is none.

The reply should read ``Input: [...], Response: [...]``. Real models write it in many forms: with
Markdown, headings, quotes, lists, JSON, tables, thoughts in front and remarks behind. One principle
holds for all: the first complete, unambiguous pair is taken, nothing that trails it is part of it,
and everything else is a counted rejection with its reason. Reading never guesses:

- A bracket that opens must close; one that was cut off or forgotten is no text.
- A text without brackets or quotes ends where the next marker begins. At the end of a reply it ends
  with its line where the task's responses are one line, else only where nothing unknown follows.
- Where two places could be the response's marker, there is no pair.

Reading takes time linear in the length of the reply, whatever it holds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from lamp import reading
from lamp.labels import normalise_label
from lamp.records import Pair
from lamp.tasks import Task
from strategy import structured
from strategy.markers import Marker, Markers, find_markers

NO_INPUT = "no_input"
NO_RESPONSE = "no_response"
EMPTY_INPUT = "empty_input"
LABEL_OUTSIDE_SET = "label_outside_set"
CUT_OFF = "cut_off"
UNCLOSED = "unclosed"
UNCLEAR = "unclear"

MAX_ATTEMPTS = 16  # places at which a pair is looked for
_SEPARATORS = " \t\n,;|"
_LONGEST_MARK = 12
_LONGEST_TAGS = 40
_SPACE = re.compile(r"\s*")
WORD = re.compile(r"[^\W_]")
_JOINS = re.compile(r"[\W_]*(?:(?:and|with|then)\b[\W_]*)?", re.IGNORECASE)
_QUOTED_WHOLE = re.compile(r"\s*([\"'`])\s{0,4}(?=[*_]{0,3}input\b[\w *_]{0,9}:)", re.IGNORECASE)
_EDGE_TAGS = re.compile(
    r"(?:\s*</?(?:b|strong|i|em|u|p|br|code|div|span)\s?/?>)+\s*", re.IGNORECASE
)
_LIST_MARK_BEHIND = re.compile(r"[\s,;]\(?\d{1,3}[.)][ \t]*\Z")
REWORDED = r"(?:paraphras|rephras|reword|rewrit|reformulat)\w*"
# What models write behind a pair; a line that begins so is no part of a text.
TALK = re.compile(
    r"[\W\d]{0,8}(?:(?:note|explanation|reason|rationale|comment|translation|summary|example|input"
    rf"|response|output|original|alternative|{REWORDED})[^\n:]{{0,20}}:"
    r"|(?:here|i (?:have|hope|kept|changed|used)|let me|please|feel free|hope this"
    rf"|(?:in )?(?:this|that) (?:is|input|response|pair|example|context|version|{REWORDED})"
    rf"|the (?:above|input|response|original|{REWORDED}))\b)",
    re.IGNORECASE,
)
# The same behind a sentence or in brackets, and a form that nobody filled in.
_REMARK = re.compile(
    r"[(\[.!?]\s{0,2}(?:note|explanation|reason|rationale)\b[^\n]{0,3}:", re.IGNORECASE
)
_FORM = re.compile(
    r"(?:(?:your|the|new|insert|an?|similar) ){0,3}(?:input|response|output|text)(?: text| here)?",
    re.IGNORECASE,
)
_RULE = re.compile(r"[ \t]*(?:[-*_=~`#]{3,}\w{0,10})[ \t]*")


@dataclass(frozen=True, slots=True)
class Parsed:
    """Outcome of reading one reply: a pair's texts, or the reason why there is none."""

    input: str = ""
    response: str = ""
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class _Field:
    """A field that was found, or why it was not.

    Attributes:
        text: What it holds.
        form: The bracket or quote that holds it; "" for none.
        reason: Why it cannot be taken.
    """

    text: str = ""
    form: str = ""
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class _Reply:
    """A cleaned reply, with what is known of it as a whole."""

    text: str
    complete: bool
    closes: dict[int, int]
    markers: Markers

    @property
    def unclosed(self) -> str:
        """The reason for a field whose end is missing."""
        return UNCLOSED if self.complete else CUT_OFF


def parse_reply(task: Task, text: str, complete: bool = True) -> Parsed:
    """Read one reply of the cloud model.

    A task whose pairs have no response (LaMP-7) needs none, and one that came is dropped. A
    response that is none of the task's labels is rejected (:mod:`lamp.labels`).

    Args:
        task: Task whose pairs are written.
        text: What the model wrote, a prefilled beginning included.
        complete: Whether the reply ended by itself, not by a limit on its length.
    """
    body, complete = answer_in(text, complete)
    if body is None:
        return Parsed(reason=NO_INPUT if complete else CUT_OFF)
    found = structured.read(body)
    parsed = _checked(task, *found) if found else read_markers(task, body, complete)
    if parsed.reason is None and task.pair_labels:
        label = normalise_label(task, parsed.response)
        return replace(parsed, response=label) if label else Parsed(reason=LABEL_OUTSIDE_SET)
    return parsed


def answer_in(text: str, complete: bool) -> tuple[str | None, bool]:
    """What the model answered behind its thoughts, and whether that is all of it."""
    body = reading.clean(text)
    ended = reading.until_end_of_turn(body)
    return reading.without_thoughts(body if ended is None else ended), complete or ended is not None


def synthetic_pair(source: Pair, index: int, parsed: Parsed) -> Pair:
    """The synthetic pair number ``index`` of ``source``."""
    return Pair(id=f"{source.id}/{index}", input=parsed.input, response=parsed.response)


def read_markers(task: Task, body: str, complete: bool) -> Parsed:
    """Look for a pair behind each marker of an input, and take the first one."""
    body = _without_outer_quotes(reading.without_fences(body))
    markers = find_markers(body)
    if markers.limit is not None:
        body, complete = body[: markers.limit], False
    reply = _Reply(body, complete, reading.matched(body), markers)
    first: Parsed | None = None
    for marker in _beginnings(reply):
        parsed = _pair_at(task, reply, marker)
        if parsed.reason is None:
            return parsed
        first = first or parsed
    return first or Parsed(reason=NO_INPUT)


def _without_outer_quotes(body: str) -> str:
    """Strip quotes around the whole pair."""
    quote, bare = _QUOTED_WHOLE.match(body), body.rstrip()
    return bare[quote.end() : -1] if quote and bare.endswith(quote[1]) else body


def _beginnings(reply: _Reply) -> list[Marker]:
    """Where a pair may begin: the first marker that stands out, then those that begin a line."""
    inputs = [each for each in reply.markers.all if each.kind == "input" and each.stands_out]
    strong = [each for each in inputs if each.leads or _has_bracket(reply, each)] or inputs
    further = [each for each in strong[1:] if each.leads]
    return [*strong[:1], *further][:MAX_ATTEMPTS]


def _has_bracket(reply: _Reply, marker: Marker) -> bool:
    return _form_at(reply.text, marker.end)[0] in reading.BRACKETS


def _pair_at(task: Task, reply: _Reply, marker: Marker) -> Parsed:
    written, response = _input_field(task, reply, marker)
    if written.reason is not None:
        return Parsed(reason=written.reason)
    if not task.response_field or reading.is_blank(written.text):
        return _checked(task, written.text, "")
    if response is not None and "" != marker.number != response.number != "":
        return Parsed(reason=UNCLEAR)  # the response of another input
    if response is None:
        return Parsed(reason=NO_RESPONSE if reply.complete else CUT_OFF)
    answer = _response_field(task, reply, response, written.form)
    if answer.reason is not None:
        return Parsed(reason=answer.reason)
    return _checked(task, *_without_common_brackets(written.text, answer.text))


def _checked(task: Task, written: str, response: str) -> Parsed:
    if reading.is_blank(written) or _FORM.fullmatch(written):
        return Parsed(reason=EMPTY_INPUT)
    if not task.response_field:
        return Parsed(input=written)
    if reading.is_blank(response) or _FORM.fullmatch(response):
        return Parsed(reason=NO_RESPONSE)
    return Parsed(input=written, response=response)


def _input_field(task: Task, reply: _Reply, marker: Marker) -> tuple[_Field, Marker | None]:
    """Read x, and find the marker of the response that belongs to it."""
    form, start = _form_at(reply.text, marker.end)
    if form in reading.BRACKETS:
        end = reply.closes.get(start)
        if end is None:
            return _Field(reason=reply.unclosed), None
        response = _behind(reply, end + 1)
        rest = reply.text[end + 1 : response.start if response else len(reply.text)]
        if _JOINS.fullmatch(rest.partition("\n")[0]):
            return _Field(reading.unwrap(reply.text[start + 1 : end]), form), response
    limit = _next_input(reply, start)
    found, unclear = _only(_responses_before(reply, start, limit))
    behind_bracket = form in reading.BRACKETS  # a text that begins with one, or what?
    if unclear or (behind_bracket and (found is None or _has_bracket(reply, found))):
        return _Field(reason=UNCLEAR), None
    if found is not None:
        written = _bare(reply.text[start : found.start])
        if any(TALK.match(line) for line in written.split("\n")[1:]):
            return _Field(reason=UNCLEAR), None
        return _Field(reading.unwrap(written), form if form in reading.QUOTES else ""), found
    if task.response_field:
        return _Field(reply.text[start:limit].strip()), None
    return _last_field(reply, start, limit, one_line=False), None


def _response_field(task: Task, reply: _Reply, marker: Marker, asked: str) -> _Field:
    """Read y.

    Args:
        task: Its responses are one line each, or longer texts.
        reply: The reply.
        marker: Where the response is named.
        asked: The bracket or quote around x; around y it is the form, not part of the text.
    """
    form, start = _form_at(reply.text, marker.end)
    further = reply.markers.between(marker.end, len(reply.text))
    limit = next((each.start for each in further if _begins_another(each)), len(reply.text))
    if start >= limit:
        return _Field(reason=NO_RESPONSE if limit < len(reply.text) or reply.complete else CUT_OFF)
    if form in reading.BRACKETS:
        end = reply.closes.get(start)
        if end is None:
            return _Field(reason=reply.unclosed)
        rest = reply.text[end + 1 : limit].partition("\n")[0]
        if asked in reading.BRACKETS or not WORD.search(rest):
            return _Field(reading.unwrap(reply.text[start + 1 : end]), form)
    if form in reading.QUOTES and (form == asked or marker.quoted):
        end = _closing_quote(reply.text, start, limit)
        return _Field(reply.text[start + 1 : end]) if end else _Field(reason=reply.unclosed)
    return _last_field(reply, start, limit, one_line=not task.long_responses)


def _last_field(reply: _Reply, start: int, limit: int, *, one_line: bool) -> _Field:
    """Read a text without brackets behind which no marker of its pair stands."""
    line, line_break, behind = reply.text[start:limit].partition("\n")
    if not line_break and limit == len(reply.text) and not reply.complete:
        return _Field(reason=CUT_OFF)
    if not one_line and not ends_text(behind):
        return _Field(reason=UNCLEAR)
    inside = reply.markers.between(start, start + len(line))
    if any(each.stands_out for each in inside) or _REMARK.search(line):
        return _Field(reason=UNCLEAR)
    if not line_break and limit < len(reply.text):  # the number of the pair behind it
        line = line[:-_LONGEST_MARK] + _LIST_MARK_BEHIND.sub("", line[-_LONGEST_MARK:])
    return _Field(reading.unwrap(_bare(line)))


def _form_at(text: str, place: int) -> tuple[str, int]:
    """The character with which a field begins behind ``place``, and where; " " for the end.

    Emphasis and quotes around a bracket are passed over.
    """
    start = _SPACE.match(text, place).end()  # type: ignore[union-attr]
    head = text[start : start + _LONGEST_MARK]
    bare = head.lstrip("*_`\"'")
    if bare[:1] in reading.BRACKETS:
        start += len(head) - len(bare)
    return text[start : start + 1] or " ", start


def _behind(reply: _Reply, start: int) -> Marker | None:
    """The marker of the response that belongs to a bracket which closes at ``start``."""
    for marker in reply.markers.between(start, len(reply.text)):
        if marker.kind == "input" and marker.stands_out:
            return None
        silent = _JOINS.fullmatch(reply.text[start : marker.start]) is not None
        if marker.kind == "response" and (marker.leads or silent):
            return marker
    return None


def _next_input(reply: _Reply, place: int) -> int:
    """Where the next input begins a line, else the end of the reply."""
    further = reply.markers.between(place, len(reply.text))
    starts = (each.start for each in further if each.kind == "input" and each.leads)
    return next(starts, len(reply.text))


def _responses_before(reply: _Reply, start: int, limit: int) -> list[Marker]:
    """The markers of responses up to ``limit``, or to a further input of the same line."""
    found: list[Marker] = []
    for marker in reply.markers.between(start, limit):
        if marker.kind == "response":
            found.append(marker)
        elif found and marker.ends_sentence:
            break
    return found


def _begins_another(marker: Marker) -> bool:
    return marker.leads or (marker.kind == "input" and marker.ends_sentence)


def _only(markers: list[Marker]) -> tuple[Marker | None, bool]:
    """The marker where a text without brackets ends, and whether several could be that."""
    for output in (False, True):
        kind = [each for each in markers if each.is_output == output and each.stands_out]
        leading = [each for each in kind if each.leads]
        if leading:
            return leading[0], False
        if kind:
            return (kind[0], False) if len(kind) == 1 else (None, True)
    return None, False


def _closing_quote(text: str, start: int, limit: int) -> int | None:
    """Where a quote closes: the first of its kind behind which no word goes on."""
    for closing in reading.QUOTES[text[start]]:
        place = text.find(closing, start + 1, limit)
        while place >= 0:
            if text[place - 1] != "\\" and not WORD.match(text[place + 1 : place + 2]):
                return place
            place = text.find(closing, place + 1, limit)
    return None


def ends_text(behind: str) -> bool:
    """Whether what stands behind a line is surely no part of its text."""
    first = behind.lstrip().partition("\n")[0]
    return not first or bool(TALK.match(first) or _RULE.fullmatch(first[:80]))


def _bare(text: str) -> str:
    """Strip separators, and a closing mark whose opening one stood around the whole pair."""
    text = _without_edge_tags(text.strip(_SEPARATORS)).strip(_SEPARATORS)
    for opening, closing in reading.BRACKETS.items():
        if text.endswith(closing) and text.count(opening) < text.count(closing):
            text = text[:-1].rstrip()
    if text.endswith("**") and text.count("**") % 2:
        text = text[:-2].rstrip()
    return text


def _without_edge_tags(text: str) -> str:
    """Strip tags of HTML that begin or end a text."""
    if opened := _EDGE_TAGS.match(text):
        text = text[opened.end() :]
    tail = text[-_LONGEST_TAGS:]
    closed = next((found for found in _EDGE_TAGS.finditer(tail) if found.end() == len(tail)), None)
    return text[: len(text) - len(tail) + closed.start()] if closed else text


def _without_common_brackets(*texts: str) -> list[str]:
    """Strip brackets of one kind that stand around all of the texts: they are a form."""
    for opening, closing in ("()", "<>", "[]"):
        if all(each[:1] == opening and each.find(closing) == len(each) - 1 for each in texts):
            return [each[1:-1].strip() for each in texts]
    return list(texts)
