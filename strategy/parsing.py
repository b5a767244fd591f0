"""Read a similar pair out of what the cloud model wrote, or say why there is none.

The reply should read ``Input: [...], Response: [...]``. Brackets, quotes and text around it are
tolerated; what cannot be read is a counted rejection, never a crash and never a guess.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from lamp.records import Pair
from lamp.tasks import Task

NO_INPUT = "no_input"
NO_RESPONSE = "no_response"
EMPTY_INPUT = "empty_input"
LABEL_OUTSIDE_SET = "label_outside_set"

_REPLY = re.compile(
    r"input\s*:\s*(?P<input>.*?)(?:[\s,;]*\bresponse\s*:\s*(?P<response>.*))?\Z",
    re.IGNORECASE | re.DOTALL,
)
_BRACKETS = {"[": "]", '"': '"', "'": "'", "“": "”"}


@dataclass(frozen=True, slots=True)
class Parsed:
    """Outcome of reading one reply: a pair's texts, or the reason why there is none."""

    input: str = ""
    response: str = ""
    reason: str | None = None


def parse_reply(task: Task, text: str) -> Parsed:
    """Read one reply of the cloud model.

    A task whose pairs have no response (LaMP-7) needs none, and one that came is dropped. A
    response outside the task's label set is rejected; case and a final full stop are forgiven.
    """
    match = _REPLY.search(_printable(text))
    if match is None:
        return Parsed(reason=NO_INPUT)
    written = _unwrap(match["input"])
    if not written:
        return Parsed(reason=EMPTY_INPUT)
    if not task.response_field:
        return Parsed(input=written)
    response = _unwrap(match["response"] or "")
    if not response:
        return Parsed(reason=NO_RESPONSE)
    if task.pair_labels:
        return _with_label(task, written, response)
    return Parsed(input=written, response=response)


def synthetic_pair(source: Pair, index: int, parsed: Parsed) -> Pair:
    """The synthetic pair number ``index`` of ``source``."""
    return Pair(id=f"{source.id}/{index}", input=parsed.input, response=parsed.response)


def _with_label(task: Task, written: str, response: str) -> Parsed:
    known = {label.casefold(): label for label in task.pair_labels}
    label = known.get(response.rstrip(".").strip().casefold())
    if label is None:
        return Parsed(reason=LABEL_OUTSIDE_SET)
    return Parsed(input=written, response=label)


def _unwrap(text: str) -> str:
    """Strip white space, one pair of brackets or quotes, and a full stop behind them."""
    text = text.strip(" \n\t,;")
    bare = text.rstrip(". \n\t")
    closing = _BRACKETS.get(text[:1])
    if closing and len(bare) > 1 and bare.endswith(closing):
        return bare[1:-1].strip()
    if text.startswith("["):  # never closed: the reply was cut off
        return text[1:].strip()
    if bare.endswith("]") and "[" not in bare:
        return bare[:-1].strip()
    return text


def _printable(text: str) -> str:
    """Replace lone surrogates and drop control characters other than white space."""
    clean = text.encode("utf-8", "replace").decode("utf-8")
    return "".join(char for char in clean if char.isprintable() or char in "\n\t ")
