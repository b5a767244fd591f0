"""OPPU's processed LaMP files: who is a target user stands in the files, not in the lengths.

    <data>/<task>/user_top_100_history.json   target users (tweets: user_more_100_history.json)
    <data>/<task>/user_others.json            everybody else, on whom base models are tuned
    <data>/<task>/*_label.json                gold answers of the target users, read for queries
                                              that bring none

A file is a list of {user_id, profile, query: [{id, input, gold}]}; profile items and prompts are
LaMP's. The profile precedes the queries, so it is D_u as it stands.

Source: Tan et al., "Democratizing Large Language Models via Personalized Parameter-Efficient
Fine-tuning" (EMNLP 2024), the data behind github.com/TamSiuhin/OPPU at 9fb3f46.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conf.errors import ConfigError, DataError
from lamp import files
from lamp.files import MalformedError, Outputs, Question, QuestionReader, Questions, Sieve
from lamp.official import numeric_fields, pair_up
from lamp.records import ProfileItem
from lamp.splits import Member, Split
from lamp.tasks import Task
from storage.text_files import display_name, shown

TARGETS = ("user_top_100_history.json", "user_more_100_history.json")
OTHERS = "user_others.json"
LABELS = "*_label.json"
_FORM = "OPPU's form is a list of users with user_id, profile and query"


@dataclass(frozen=True, slots=True)
class OppuData:
    """What OPPU's files hold of one task.

    Attributes:
        split: The users, and what was left out.
        golds: Question id -> gold answer.
        targets: Ids of the users that OPPU adapts to and scores.
    """

    split: Split
    golds: Mapping[str, str]
    targets: frozenset[str]


@dataclass(frozen=True, slots=True)
class _User:
    user_id: str
    profile: tuple[ProfileItem, ...]
    queries: tuple[Any, ...]


def read_oppu(folder: Path, task: Task) -> OppuData:
    """Read both files of a task below ``folder``.

    Raises:
        ConfigError: If OPPU has no files for the task.
        DataError: If a file is missing or broken, a user or a question stands twice, or most users,
            items or queries are malformed.
    """
    place = folder / _folder_of(task)
    target_file = next((place / name for name in TARGETS if (place / name).is_file()), None)
    if target_file is None:
        raise DataError(
            f"data folder '{folder.name}': expected {task.oppu}/{' or '.join(TARGETS)}, there is "
            "none; unpack OPPU's processed data there, or set files=lamp for official files"
        )
    labels = _labels(place, task)
    first, notes = read_users(target_file, task)
    targets, golds = _with_golds(first, task, display_name(target_file), labels)
    second, more = read_users(place / OTHERS, task)
    others, other_golds = _with_golds(second, task, display_name(place / OTHERS), {})
    _refuse_repeated((*targets.members, *others.members))
    split = Split(
        "oppu",
        (*targets.members, *others.members),
        (*notes, *targets.notes, *more, *others.notes),
    )
    named = frozenset(member.user_id for member in targets.members)
    return OppuData(split, {**other_golds, **golds}, named)


def _folder_of(task: Task) -> str:
    if not task.oppu:
        raise ConfigError(f"files=oppu: OPPU has no files of {task.name}; set files=lamp")
    return task.oppu


def _labels(place: Path, task: Task) -> Mapping[str, str]:
    """Gold answers by question id; the task's name in the file is not looked at: two are wrong."""
    found = sorted(place.glob(LABELS))
    return files.read_outputs(found[0], numeric=task.kind != "text").golds if found else {}


def read_users(path: Path, task: Task) -> tuple[list[_User], tuple[str, ...]]:
    """Read one file of users, and what to say about what was left out.

    Raises:
        DataError: If it is missing or broken, or most of its users or items are malformed.
    """
    where = display_name(path)
    entries = files.expect(files.load(path), list, where, _FORM)
    people, items = Sieve("users", where), Sieve("profile items", where)
    reader = QuestionReader(where, task.fields, numeric_fields(task), items)
    users = [
        user
        for number, entry in enumerate(entries, start=1)
        for user in people.take(_user, entry, number, reader)
    ]
    items.refuse_most()
    people.refuse_most()
    if not users:
        raise DataError(f"{where}: expected users, got an empty list; fetch the file again")
    left_out = (*people.left_out, *items.left_out)
    if not left_out:
        return users, ()
    return users, (f"malformed users and records: {len(left_out)}; the first: {left_out[0]}",)


def _user(entry: Any, number: int, reader: QuestionReader) -> _User:
    where = f"{reader.where}, user number {number}"
    record = files.expect(entry, dict, where, _FORM)
    user_id = files.id_field(record, "user_id", where)
    where = f"{reader.where}, user {shown(user_id)}"
    profile = files.expect(record.get("profile"), list, f"{where}, field 'profile'", _FORM)
    asked = record.get("query")
    queries = [] if asked is None else files.expect(asked, list, f"{where}, field 'query'", _FORM)
    items = reader.profile(profile, where)
    if not items:
        raise MalformedError(
            f"{where}, field 'profile': expected at least one item that can be used; leave the "
            "user out of the file"
        )
    return _User(user_id, items, tuple(queries))


def _with_golds(
    users: Sequence[_User], task: Task, where: str, labels: Mapping[str, str]
) -> tuple[Split, Mapping[str, str]]:
    """The users with the queries that can be asked and scored."""
    queries, golds = Sieve("queries", where), dict[str, str]()
    questions = [
        question
        for user in users
        for number, entry in enumerate(user.queries, start=1)
        for question in queries.take(_question, entry, number, user, where)
    ]
    for user in users:
        golds |= _golds(user, labels, task, where)
    if not questions:
        return Split("oppu", tuple(Member(u.user_id, u.profile, ()) for u in users), ()), {}
    queries.refuse_most()
    files.refuse_duplicates(({"id": each.id} for each in questions), where, "query")
    read = Questions(tuple(questions), tuple(queries.left_out))
    usable = pair_up(read, Outputs(task.official, golds), task, where)
    return Split("oppu", _members(users, usable.questions), usable.notes), usable.golds


def _question(entry: Any, number: int, user: _User, file: str) -> Question:
    where = f"{file}, user {shown(user.user_id)}, query number {number}"
    record = files.expect(entry, dict, where, "a query is an object with id, input and gold")
    identifier = files.id_field(record, "id", where)
    text = files.text_field(record, "input", f"{file}, query {shown(identifier)}")
    return Question(identifier, text, user.profile, user.user_id)


def _golds(user: _User, labels: Mapping[str, str], task: Task, file: str) -> dict[str, str]:
    """Golds by question id; a query without one gets that of the label file, where it is there."""
    found: dict[str, str] = {}
    for entry in user.queries:
        if not isinstance(entry, dict) or not isinstance(entry.get("id"), str | int):
            continue  # its question is left out
        identifier, gold = str(entry["id"]), entry.get("gold")
        if gold is None:
            found |= {identifier: labels[identifier]} if identifier in labels else {}
        elif isinstance(gold, str) or (task.kind != "text" and type(gold) in (int, float)):
            found[identifier] = files.text_field(entry, "gold", file, task.kind != "text")
    return found


def _members(users: Iterable[_User], questions: Iterable[Question]) -> tuple[Member, ...]:
    asked: dict[str, list[Question]] = {}
    for question in questions:
        asked.setdefault(str(question.user_id), []).append(question)
    return tuple(
        Member(
            user.user_id,
            asked[user.user_id][0].profile if user.user_id in asked else user.profile,
            tuple(asked.get(user.user_id, ())),
        )
        for user in users
    )


def _refuse_repeated(members: Iterable[Member]) -> None:
    seen: set[str] = set()
    for member in members:
        if member.user_id in seen:
            raise DataError(
                f"user {shown(member.user_id)}: stands twice in OPPU's files; a target user must "
                "not be among the others, so fetch both files again"
            )
        seen.add(member.user_id)
