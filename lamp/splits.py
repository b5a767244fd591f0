"""From questions to users: which history precedes which query.

LaMP's time-based files hold several questions per user, each with the history as it stood then. D_u
is the earliest of these histories, so nothing in it comes after a scored query. The user-based
files have one question per user and no dates: there, nothing shows the order.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from conf.errors import DataError
from lamp.files import Question
from lamp.records import ProfileItem

# 2011 · 2011-05 · 2011-05-09 · 2011-05-09 13:30:59.5Z; also with one-digit months, as in LaMP
_DATE = re.compile(
    r"(\d+(?:-\d{1,2}){0,2})(?:[T ](\d{1,2}(?::\d{2}){0,2})(?:\.\d+)?\s*(?:Z|[+-]\d{2}:?\d{2})?)?"
)


@dataclass(frozen=True, slots=True)
class Member:
    """A user with the history D_u is made from, and all questions in file order."""

    user_id: str
    profile: tuple[ProfileItem, ...]
    questions: tuple[Question, ...]


@dataclass(frozen=True, slots=True)
class Split:
    """All users of a file; ``notes`` says what a reader of the results should know."""

    name: str
    members: tuple[Member, ...]
    notes: tuple[str, ...]


def split_questions(questions: Sequence[Question], name: str, where: str) -> Split:
    """Group ``questions`` by user.

    Args:
        questions: All questions of one file.
        name: "time", "user", "holdout", or "auto" for "time" where every question has a user id and
            every profile item a date.
        where: Name of the file, for messages.

    Raises:
        DataError: If the split needs user ids or dates that are missing or unreadable.
    """
    if name == "time" or (name == "auto" and _has_time(questions)):
        return _by_time(questions, where)
    if name == "holdout":
        return _whole_histories(questions, where)
    split = _by_user(questions, where)
    if name == "user":
        return split
    note = "split=auto took 'user': not every question has a user_id and every profile item a date"
    return Split(split.name, split.members, (note, *split.notes))


def date_key(date: str) -> tuple[int, ...] | None:
    """Read an ISO date, a year or a time stamp as numbers in descending order of weight.

    Fractions of a second and time zones do not count. None when the date cannot be read.
    """
    match = _DATE.fullmatch(date.strip())
    if match is None:
        return None
    return tuple(int(number) for group in match.groups("") for number in re.findall(r"\d+", group))


def date_of(item: ProfileItem, owner: str, expected: str, remedy: str) -> tuple[int, ...]:
    """Read the date of an item as :func:`date_key` does.

    Args:
        item: The item.
        owner: Whose it is, for the error.
        expected: What its date has to be, for the error.
        remedy: What to do, for the error.

    Raises:
        DataError: If there is none, or it cannot be read.
    """
    key = None if item.date is None else date_key(item.date)
    if key is None:
        got = "there is none" if item.date is None else "it cannot be read"
        raise DataError(
            f"{owner}, profile item '{item.id}', field 'date': expected {expected}, {got}; {remedy}"
        )
    return key


def _has_time(questions: Iterable[Question]) -> bool:
    return all(
        question.user_id is not None and all(item.date is not None for item in question.profile)
        for question in questions
    )


def _by_time(questions: Sequence[Question], where: str) -> Split:
    members = []
    ambiguous = 0
    for user_id, asked in _group(questions, where, "time").items():
        keys = {question.id: _dated(question, where) for question in asked}
        # the last entry of a history tells how far it reaches; histories are nested, so of two
        # that reach as far the shorter is the earlier
        order = sorted(asked, key=lambda each: (max(keys[each.id]), len(each.profile), each.id))
        first = order[0]
        ambiguous += any(
            max(keys[other.id]) == max(keys[first.id])
            and {item.id for item in other.profile} != {item.id for item in first.profile}
            for other in order[1:]
        )
        dated = sorted(zip(keys[first.id], range(len(first.profile)), strict=True))
        profile = tuple(first.profile[index] for _, index in dated)
        members.append(Member(user_id, profile, asked))
    return Split("time", tuple(members), _ambiguity_note(ambiguous))


def _ambiguity_note(users: int) -> tuple[str, ...]:
    if not users:
        return ()
    return (
        f"users with several histories that end on the same date: {users}; "
        "the shortest counts as the earliest",
    )


def _by_user(questions: Sequence[Question], where: str) -> Split:
    members = [
        Member(user_id, min(asked, key=lambda each: each.id).profile, asked)
        for user_id, asked in _users(questions, where, "user").items()
    ]
    note = "split=user: without dates nothing shows that a history precedes its queries"
    return Split("user", tuple(members), (note,))


def _whole_histories(questions: Sequence[Question], where: str) -> Split:
    """Each user with the longest of the own profiles, and no question of the file."""
    members = [
        Member(user_id, min(asked, key=lambda each: (-len(each.profile), each.id)).profile, ())
        for user_id, asked in _users(questions, where, "holdout").items()
    ]
    return Split("holdout", tuple(members), ())


def _users(
    questions: Sequence[Question], where: str, split: str
) -> Mapping[str, tuple[Question, ...]]:
    """Questions by user; each is a user of its own where none has a user id."""
    if all(question.user_id is None for question in questions):
        return {each.id: (each,) for each in questions}
    return _group(questions, where, split)


def _group(
    questions: Iterable[Question], where: str, split: str
) -> dict[str, tuple[Question, ...]]:
    groups: defaultdict[str, list[Question]] = defaultdict(list)
    remedy = "set split=user" if split == "time" else "give every question a user_id, or none"
    for question in questions:
        if question.user_id is None:
            raise DataError(
                f"{where}, question '{question.id}', field 'user_id': expected a user id for "
                f"split={split}, there is none; {remedy}"
            )
        groups[question.user_id].append(question)
    return {user_id: tuple(asked) for user_id, asked in groups.items()}


def _dated(question: Question, where: str) -> list[tuple[int, ...]]:
    """Return the date of each profile item, in file order."""
    owner = f"{where}, question '{question.id}'"
    remedy = "write dates as YYYY-MM-DD, or set split=user"
    return [
        date_of(item, owner, "a year, ISO date or time for split=time", remedy)
        for item in question.profile
    ]
