"""Pydantic's findings in one readable line: key, what was expected, what came."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

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
    found: dict[str, list[ErrorDetails]] = {}
    for details in error.errors(include_url=False):
        found.setdefault(_key(details), []).append(details)
    return "; ".join(_clause(key, findings) for key, findings in found.items())


def _key(details: ErrorDetails) -> str:
    """Return the key of a finding, without the kind appended where several were tried."""
    parts = details["loc"]
    parent = ".".join(str(part) for part in parts[:-1])
    tried = keys().get(parent)
    if tried is not None and not tried.is_section and isinstance(parts[-1], str):
        return parent
    return ".".join(str(part) for part in parts) or "the configuration"


def _clause(key: str, findings: Sequence[ErrorDetails]) -> str:
    first = findings[0]
    if len(findings) > 1:  # neither of several kinds
        expected = " or ".join(_expected(details) for details in findings)
        return f"{key} must be {expected}, got {_shown(first)}"
    special = SPECIAL.get(first["type"])
    if special is not None:
        return special(key, first)
    return f"{key} must be {_expected(first)}, got {_shown(first)}"


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
