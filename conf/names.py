"""Unknown names: what to say so that the next try succeeds."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import TypeVar

from conf.errors import ConfigError

T = TypeVar("T", bound=str)


def suggestion(name: str, known: Iterable[str]) -> str:
    """Say what to type instead of an unknown name.

    Args:
        name: What was typed.
        known: Every name that would have been right.

    Returns:
        ``"Did you mean 'mixed'? Known: beta, fixed, mixed"``; without the question where nothing
        is near.
    """
    known = sorted(known)
    close = nearest(name, known)
    question = f"Did you mean '{close}'? " if close else ""
    return f"{question}Known: {', '.join(known) or 'none'}"


def one_of(key: str, value: str, known: Sequence[T]) -> T:
    """Return ``value`` if it is one of ``known``.

    Raises:
        ConfigError: If not; the message names the nearest one.
    """
    for each in known:
        if each == value:
            return each
    raise ConfigError(f"{key}={value}: {suggestion(value, known)}")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name nearest to ``name``, whatever the case; None where none is near."""
    by_folded = {candidate.casefold(): candidate for candidate in known}
    found = difflib.get_close_matches(name.casefold(), by_folded, n=1)
    return by_folded[found[0]] if found else None
