"""Texts that stand where they give an answer away: in the history of the user who is asked.

Two texts are the same when their :func:`normalised` forms are equal.
"""

from __future__ import annotations

import unicodedata

from lamp.records import UserHistory
from lamp.tasks import Task, query_text

# Unicode categories that part words: punctuation, separators, control characters.
_PARTS_WORDS = frozenset("PZC")


class _Blanks(dict[int, int | str]):
    """For ``str.translate``: a blank for every character that parts words, filled on demand."""

    def __missing__(self, code: int) -> int | str:
        parts = unicodedata.category(chr(code))[0] in _PARTS_WORDS
        self[code] = " " if parts else code
        return self[code]


_BLANKS = _Blanks()


def normalised(text: str) -> str:
    """Return the form in which texts are compared.

    Compatibility forms are unified (NFKC) and case is folded; every run of punctuation, white space
    and control characters becomes one blank, none at the ends. Letters, marks, digits and symbols
    (emoji among them) stay. A text of punctuation alone stays as it is, white space aside.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(folded.translate(_BLANKS).split()) or " ".join(text.split())


def given_away(user: UserHistory, task: Task) -> tuple[str, ...]:
    """Return the ids of the queries whose text stands in the user's own history.

    Where an item is its own answer, LaMP-7, the gold answer counts as well: a query asks for a
    paraphrase back into the user's words.
    """
    history = {normalised(text) for item in user.profile for text in item.fields.values()}
    return tuple(
        query.id
        for query in user.queries
        if normalised(query_text(task, query)) in history
        or (not task.response_field and normalised(query.gold) in history)
    )
