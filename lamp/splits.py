"""From questions to users: which history precedes which query.

LaMP's time-based files hold several questions per user, each with the history as it stood then. D_u
is the earliest of these histories, less what may come after another question; so nothing in it
comes after a scored query. The user-based
files have one question per user and no dates: there, nothing shows the order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from conf.errors import DataError
from lamp.dates import Key, date_of, precedes
from lamp.files import Question
from lamp.records import ProfileItem
from storage.text_files import shown


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


def _has_time(questions: Iterable[Question]) -> bool:
    return all(
        question.user_id is not None and all(item.date is not None for item in question.profile)
        for question in questions
    )


def _by_time(questions: Sequence[Question], where: str) -> Split:
    members, unclear, dropped = [], 0, 0
    users = _group(questions, where, "time")
    for user_id, asked in users.items():
        keys = {question.id: _dated(question, where) for question in asked}
        # the last entry of a history tells how far it reaches; histories are nested, so of two
        # that reach as far the shorter is the earlier
        first = min(asked, key=lambda each: (max(keys[each.id]), len(each.profile), each.id))
        doubtful = [other for other in asked if not _is_later(other, first, keys)]
        places = _before_all(first, doubtful, keys)
        unclear += len(places) < len(first.profile) or any(
            len(other.profile) != len(first.profile) for other in doubtful
        )
        if not places:  # no record is before all of them: keep the history, drop the others
            places = list(range(len(first.profile)))
            lost = {other.id for other in doubtful if other is not first}
            dropped += len(lost)
            asked = tuple(question for question in asked if question.id not in lost)
        ordered = sorted(places, key=lambda place: (keys[first.id][place], place))
        members.append(Member(user_id, tuple(first.profile[place] for place in ordered), asked))
    notes = (*_doubt_notes(unclear, dropped), *_identity_note(users))
    return Split("time", tuple(members), notes)


def _is_later(other: Question, first: Question, keys: Mapping[str, Sequence[Key]]) -> bool:
    """Whether ``other`` was certainly asked after everything in the history of ``first``."""
    end = max(keys[other.id])
    return all(precedes(key, end) for key in keys[first.id])


def _before_all(
    first: Question, doubtful: Sequence[Question], keys: Mapping[str, Sequence[Key]]
) -> list[int]:
    """Places of the records of ``first`` that certainly come before each question.

    A record comes before a question if it stands in the question's history, or is older than its
    last entry.
    """
    known = [
        ({_content(item) for item in other.profile}, max(keys[other.id])) for other in doubtful
    ]
    return [
        place
        for place, item in enumerate(first.profile)
        if all(
            _content(item) in history or precedes(keys[first.id][place], end)
            for history, end in known
        )
    ]


def _content(item: ProfileItem) -> tuple[str | None, frozenset[tuple[str, str]]]:
    return item.date, frozenset(item.fields.items())


def _doubt_notes(unclear: int, dropped: int) -> Iterator[str]:
    if unclear:
        yield (
            f"users with several histories that end on the same date: {unclear}; D_u holds what "
            "stands in all of them"
        )
    if dropped:
        yield (
            f"questions that are left out, as nothing shows that the user's history precedes them: "
            f"{dropped}"
        )


def _by_user(questions: Sequence[Question], where: str) -> Split:
    users = _users(questions, where, "user")
    members = [
        Member(user_id, min(asked, key=lambda each: each.id).profile, asked)
        for user_id, asked in users.items()
    ]
    note = "split=user: without dates nothing shows that a history precedes its queries"
    return Split("user", tuple(members), (note, *_identity_note(users)))


def _whole_histories(questions: Sequence[Question], where: str) -> Split:
    """Each user with the longest of the own profiles, and no question of the file."""
    users = _users(questions, where, "holdout")
    members = [
        Member(user_id, min(asked, key=lambda each: (-len(each.profile), each.id)).profile, ())
        for user_id, asked in users.items()
    ]
    return Split("holdout", tuple(members), _identity_note(users))


def _identity_note(users: Mapping[str, tuple[Question, ...]]) -> tuple[str, ...]:
    """Notice question ids in the place of user ids: nothing keeps one person's together then."""
    same = sum(len(asked) == 1 and asked[0].id == user for user, asked in users.items())
    if 2 * same <= len(users):
        return ()
    return (
        f"user ids that are question ids: {same} of {len(users)}; one person may stand under "
        "several of them",
    )


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


def _dated(question: Question, where: str) -> list[Key]:
    """Return the date of each profile item, in file order."""
    owner = f"{where}, question {shown(question.id)}"
    return [date_of(item, owner, "split=time", "set split=user") for item in question.profile]
