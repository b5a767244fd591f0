"""Unknown names: what to say so that the next try succeeds."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name nearest to ``name``, whatever the case; None where none is near."""
    by_folded = {candidate.casefold(): candidate for candidate in known}
    found = difflib.get_close_matches(name.casefold(), by_folded, n=1)
    return by_folded[found[0]] if found else None
