"""The records that cross folder borders: who has written what, and what is asked of them.

Words: a *profile item* is one entry of LaMP's file; a *pair* is what training sees of it, (input
x, response y); D_u is the tuple of a user's pairs; a *query* is a scored question with its gold
answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProfileItem:
    """One entry of a user's profile as the official file has it.

    Attributes:
        id: Id within the profile.
        fields: Text fields by name, e.g. {"text": ..., "title": ...}; all values are strings.
        date: ISO date or datetime; None where the data has no dates.
    """

    id: str
    fields: Mapping[str, str]
    date: str | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """One record of D_u, or one synthetic pair.

    Attributes:
        id: Id of the profile item; a synthetic pair's id is "<shared id>/<sample index>".
        input: x: the input field's text only, never the instruction.
        response: y; empty for plain-text items (LaMP-7).
    """

    id: str
    input: str
    response: str


@dataclass(frozen=True, slots=True)
class Query:
    """One scored question.

    Attributes:
        id: Official question id.
        input: Official prompt, instruction included.
        gold: Official answer.
    """

    id: str
    input: str
    gold: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt in parts, so that one that is too long can be cut where the user's text stands.

    Attributes:
        before: Instruction, and records that were retrieved for it.
        text: The text x that it is about.
        after: What follows the text.
    """

    before: str
    text: str
    after: str = ""

    def __str__(self) -> str:
        """The whole prompt."""
        return f"{self.before}{self.text}{self.after}"


@dataclass(frozen=True, slots=True)
class UserHistory:
    """One user: D_u and the queries that come after it.

    Attributes:
        user_id: Official user id, or the question id where the file has none.
        profile: Profile items in file order (by date where dates exist).
        pairs: D_u, one pair per profile item, in the same order.
        queries: Scored queries, in file order.
    """

    user_id: str
    profile: tuple[ProfileItem, ...]
    pairs: tuple[Pair, ...]
    queries: tuple[Query, ...]
