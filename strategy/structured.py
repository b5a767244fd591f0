"""Pairs that a model wrote as JSON, as tags or as a table, whatever the prompt asked for."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from lamp import reading

MAX_OBJECTS = 8  # places at which an object is looked for
_DECODER = json.JSONDecoder(strict=False)  # models write line breaks into strings
_KEY = re.compile(r"\"[\s\w]{0,24}input[\s\w()/]{0,24}\"\s{0,4}:", re.IGNORECASE)
_PLAIN = re.compile(r"(?<![\w\"])input[\s*_\d]{0,6}:\s{0,4}[\[\w\"]", re.IGNORECASE)
_TAG = re.compile(r"<(input|response|output)>", re.IGNORECASE)
_HEAD = re.compile(r"\|[ \t*_`]{0,6}input\b", re.IGNORECASE)
_RULER = re.compile(r"[|\s:-]{3,400}")
_RESPONSES = ("response", "output")


def read(text: str) -> tuple[str, str] | None:
    """Return (x, y) of the first pair in one of these forms; "" for a field that is not there."""
    return _from_json(text) or _from_tags(text) or _from_table(text)


def _from_json(text: str) -> tuple[str, str] | None:
    plain = _PLAIN.search(text)
    end = plain.start() if plain else len(text)
    for number, key in enumerate(_KEY.finditer(text, 0, end)):
        if number == MAX_OBJECTS:
            return None
        start = text.rfind("{", 0, key.start())
        if start >= 0 and (found := _decoded(text, start)) is not None:
            return found
    return None


def _decoded(text: str, start: int) -> tuple[str, str] | None:
    try:
        value, _ = _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, Mapping):
        return None
    responses = [found for name in _RESPONSES if (found := _values(value, name))]
    return _only(_values(value, "input")), _only(responses[0] if responses else [])


def _only(values: Sequence[str]) -> str:
    return values[0] if len(values) == 1 else ""


def _values(value: Mapping[str, Any], name: str) -> list[str]:
    """What stands under keys that say ``name``, as text."""
    return [
        _text(held)
        for key, held in value.items()
        if name in key.casefold().replace("_", " ").split()
    ]


def _text(value: Any) -> str:
    """A string or a number as text, also as a list's only entry; "" for anything else."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    return reading.clean(str(value)).strip()


def _from_tags(text: str) -> tuple[str, str] | None:
    """Read ``<input>x</input> <response>y</response>``."""
    fields: dict[str, str] = {}
    for tag in _TAG.finditer(text):
        name = "input" if tag[1].lower() == "input" else "response"
        end = text.find(f"</{tag[1]}>", tag.end())
        if end < 0 or name in fields or (name == "response" and not fields):
            break
        fields[name] = text[tag.end() : end].strip()
        if len(fields) == 2:
            break
    return (fields["input"], fields.get("response", "")) if fields else None


def _from_table(text: str) -> tuple[str, str] | None:
    """Read the first row of a Markdown table whose head names both fields."""
    for number, head in enumerate(_HEAD.finditer(text)):
        if number == MAX_OBJECTS:
            return None
        start = text.rfind("\n", 0, head.start()) + 1
        names, ruler, row, *_ = [*text[start:].split("\n", 3), "", ""]
        if _RULER.fullmatch(ruler.strip()) and row.rstrip().endswith("|"):
            return _from_row([_name(cell) for cell in _cells(names)], _cells(row))
    return None


def _from_row(names: Sequence[str], cells: Sequence[str]) -> tuple[str, str] | None:
    if names.count("input") != 1 or names.count("response") != 1 or len(cells) != len(names):
        return None
    written, response = (cells[names.index(name)] for name in ("input", "response"))
    return reading.unwrap(written), reading.unwrap(response)


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def _name(cell: str) -> str:
    words = cell.casefold().strip(" *_`").split()
    if any(word in _RESPONSES for word in words):
        return "response"
    return "input" if "input" in words else ""
