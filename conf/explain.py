"""Pydantic's findings in one readable line: key, what was expected, what came."""

from __future__ import annotations

import json
from collections.abc import Callable

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from conf.keys import keys, suggest_key
from conf.names import nearest

SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
EXPECTED = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a finite number",
    "bool": "true or false",
    "tuple": "a list like [a,b]",
    "dataclass": "a group of keys",
    "none": "null",
}


def explain(error: ValidationError) -> str:
    """Say what is wrong, one clause per finding, e.g. ``users must be >= 1, got 0``."""
    return "; ".join(_clause(details) for details in error.errors(include_url=False))


def _clause(details: ErrorDetails) -> str:
    key = ".".join(str(part) for part in details["loc"]) or "the configuration"
    special = SPECIAL.get(details["type"])
    if special is not None:
        return special(key, details)
    return f"{key} must be {_expected(details)}, got {_shown(details)}"


def _expected(details: ErrorDetails) -> str:
    for name, bound in details.get("ctx", {}).items():
        if name == "gt" and isinstance(bound, int):
            return f">= {bound + 1}"  # of whole numbers, the friendlier way to say "> 0"
        if name in SIGNS:
            return f"{SIGNS[name]} {bound:g}"
    kind = details["type"].partition("_")[0]
    return EXPECTED.get(kind, details["msg"].removeprefix("Input should be ").lower())


def _shown(details: ErrorDetails) -> str:
    return json.dumps(details["input"], ensure_ascii=False, default=str)


def required(key: str) -> str:
    """Say that ``key`` has no default."""
    return f"{key} is required: set {key}=..."


def _unknown(key: str, _: ErrorDetails) -> str:
    return f"{key}: unknown key. {suggest_key(key)}"


def _missing(key: str, _: ErrorDetails) -> str:
    return required(key)


def _choice(key: str, details: ErrorDetails) -> str:
    path = ".".join(str(part) for part in details["loc"] if isinstance(part, str))
    choices = keys()[path].choices
    close = nearest(str(details["input"]), choices)
    question = f". Did you mean '{close}'?" if close else ""
    return f"{key} must be one of {', '.join(choices)}, got {_shown(details)}{question}"


def _text(key: str, details: ErrorDetails) -> str:
    shown = _shown(details)
    return f"{key} must be text, got {shown}; in quotes it is text: {key}='\"{shown}\"'"


def _no_json(_: str, details: ErrorDetails) -> str:
    return f"the configuration is no JSON object: {details['msg']}"


SPECIAL: dict[str, Callable[[str, ErrorDetails], str]] = {
    "unexpected_keyword_argument": _unknown,
    "missing": _missing,
    "literal_error": _choice,
    "string_type": _text,
    "json_invalid": _no_json,
}
