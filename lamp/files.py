"""Official LaMP files: all that is read is checked, all that is written can be read again.

A question file is a list of {id, input, profile, user_id?}, its profile a list of {id, date?, text
fields}; an output file is {task, golds: [{id, output}]}, and predictions have the same form. The
first thing that is wrong ends the reading with a :class:`DataError` that says where it stands and
what to do; it names records by their ids and never quotes a user's text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conf.errors import DataError
from lamp.records import ProfileItem
from lamp.tasks import Task
from storage import atomic

_JSON_TYPES: dict[type, str] = {
    type(None): "null",
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "a list",
    dict: "an object",
}
_MISSING = object()
_ADD = "add the field or leave the record out"
_STRING = "write it as a string"


@dataclass(frozen=True, slots=True)
class Question:
    """One entry of a question file.

    Attributes:
        id: Question id, unique in the file.
        input: Prompt, instruction included.
        profile: The user's history as this question may see it; never empty.
        user_id: Present in the time-based split.
    """

    id: str
    input: str
    profile: tuple[ProfileItem, ...]
    user_id: str | None = None


@dataclass(frozen=True, slots=True)
class Outputs:
    """An output file: the gold answers, or the predictions, of one task by question id."""

    task: str
    golds: Mapping[str, str]


def read_questions(path: Path, fields: Sequence[str] = ()) -> tuple[Question, ...]:
    """Read and check a question file.

    Args:
        path: ``<part>_questions.json``.
        fields: Text fields that every profile item must have.

    Raises:
        DataError: If the file is missing or broken, or a record lacks a field, repeats an id, has
            an empty profile, a value of the wrong type or a lone surrogate.
    """
    where = display_name(path)
    entries = _expect(_load(path), list, where, "the official form is a list of questions")
    questions = tuple(
        _question(entry, f"{where}, question number {number}", where, fields)
        for number, entry in enumerate(entries, start=1)
    )
    if not questions:
        raise DataError(f"{where}: expected questions, got an empty list; fetch the file again")
    _refuse_duplicates((question.id for question in questions), where, "question")
    return questions


def read_outputs(path: Path) -> Outputs:
    """Read and check an output file, gold answers or predictions.

    Raises:
        DataError: If the file is missing or broken, a record lacks a field, repeats an id or has a
            value of the wrong type.
    """
    where = display_name(path)
    content = _expect(_load(path), dict, where, "the official form is {task, golds}")
    task = _text(content, "task", where)
    entries = _expect(content.get("golds", _MISSING), list, f"{where}, field 'golds'", _ADD)
    golds = tuple(
        _gold(entry, f"{where}, gold number {number}", where)
        for number, entry in enumerate(entries, start=1)
    )
    _refuse_duplicates((identifier for identifier, _ in golds), where, "gold")
    return Outputs(task, dict(golds))


def write_questions(path: Path, questions: Iterable[Question]) -> None:
    """Write a question file, atomically."""
    atomic.write_text(path, json.dumps([_plain(each) for each in questions], ensure_ascii=False))


def write_outputs(path: Path, task: Task, golds: Mapping[str, str]) -> None:
    """Write an output file, atomically; ``golds`` maps question ids to answers."""
    entries = [{"id": identifier, "output": output} for identifier, output in golds.items()]
    content = {"task": task.official, "golds": entries}
    atomic.write_text(path, json.dumps(content, ensure_ascii=False))


def write_predictions(path: Path, task: Task, predictions: Mapping[str, str]) -> None:
    """Write predictions as LaMP's evaluation expects them: in the form of an output file.

    A lone surrogate, which no JSON reader need accept, becomes a question mark: what a model wrote
    must not stop the run that writes it down.
    """
    clean = {
        identifier: text.encode("utf-8", "replace").decode("utf-8")
        for identifier, text in predictions.items()
    }
    write_outputs(path, task, clean)


def display_name(path: Path) -> str:
    """Name ``path`` in a message: its last folder and its name, never a whole path."""
    return f"{path.parent.name}/{path.name}" if path.parent.name else path.name


def _load(path: Path) -> Any:
    where = display_name(path)
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(
            f"{where}: expected an official LaMP file, there is none; "
            "check `data` and `part`, or fetch it with `python -m sim download task=…`"
        ) from None
    except json.JSONDecodeError as error:
        raise DataError(
            f"{where} line {error.lineno} column {error.colno}: expected JSON, got: {error.msg}; "
            "the file is broken or incomplete, fetch or write it again"
        ) from None
    except (UnicodeDecodeError, RecursionError) as error:
        raise DataError(
            f"{where}: expected JSON in UTF-8, got {type(error).__name__}; fetch or write it again"
        ) from None
    except OSError as error:
        raise DataError(f"{where}: cannot be read ({error.strerror}); check the file") from error


def _question(entry: Any, where: str, file: str, fields: Sequence[str]) -> Question:
    record = _expect(entry, dict, where, "a question is an object with id, input and profile")
    identifier = _identifier(record, "id", where)
    where = f"{file}, question '{identifier}'"
    profile = _expect(record.get("profile", _MISSING), list, f"{where}, field 'profile'", _ADD)
    if not profile:
        raise DataError(
            f"{where}, field 'profile': expected at least one item, got none; "
            "leave users without a history out of the file"
        )
    items = tuple(_item(item, where, number, fields) for number, item in enumerate(profile, 1))
    _refuse_duplicates((item.id for item in items), where, "profile item")
    user_id = _identifier(record, "user_id", where) if "user_id" in record else None
    return Question(identifier, _text(record, "input", where), items, user_id)


def _item(entry: Any, question: str, number: int, fields: Sequence[str]) -> ProfileItem:
    where = f"{question}, profile item number {number}"
    record = _expect(entry, dict, where, "a profile item is an object with id and text fields")
    identifier = _identifier(record, "id", where)
    where = f"{question}, profile item '{identifier}'"
    for field in fields:
        _text(record, field, where)
    texts = {name: _text(record, name, where) for name in record if name not in ("id", "date")}
    return ProfileItem(identifier, texts, _date(record, where))


def _gold(entry: Any, where: str, file: str) -> tuple[str, str]:
    record = _expect(entry, dict, where, "a gold is an object with id and output")
    identifier = _identifier(record, "id", where)
    return identifier, _text(record, "output", f"{file}, gold '{identifier}'")


def _date(record: dict[str, Any], where: str) -> str | None:
    """Read the date; OPPU's files have years as numbers, which become strings here."""
    if "date" not in record:
        return None
    if type(record["date"]) is int:
        return str(record["date"])
    return _text(record, "date", where)


def _identifier(record: dict[str, Any], field: str, where: str) -> str:
    identifier = _text(record, field, where)
    if not identifier:
        raise DataError(f"{where}, field '{field}': expected an id, got an empty string; {_ADD}")
    return identifier


def _text(record: dict[str, Any], field: str, where: str) -> str:
    value = record.get(field, _MISSING)
    remedy = _ADD if value is _MISSING or value is None else _STRING
    text: str = _expect(value, str, f"{where}, field '{field}'", remedy)
    if not text.isascii():
        _refuse_surrogates(text, f"{where}, field '{field}'")
    return text


def _refuse_surrogates(text: str, where: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}: expected Unicode text, got a lone surrogate at character {error.start}, "
            "half of a character cut in two; remove it"
        ) from None


def _expect(value: Any, kind: type, where: str, remedy: str) -> Any:
    if isinstance(value, kind):
        return value
    got = "nothing" if value is _MISSING else _JSON_TYPES[type(value)]
    raise DataError(f"{where}: expected {_JSON_TYPES[kind]}, got {got}; {remedy}")


def _refuse_duplicates(identifiers: Iterable[str], where: str, noun: str) -> None:
    seen: set[str] = set()
    for identifier in identifiers:
        if identifier in seen:
            raise DataError(
                f"{where}, {noun} '{identifier}', field 'id': expected a unique id, "
                "it stands there twice; rename or remove one"
            )
        seen.add(identifier)


def _plain(question: Question) -> dict[str, Any]:
    user = {} if question.user_id is None else {"user_id": question.user_id}
    profile = [
        {"id": item.id, **item.fields, **({} if item.date is None else {"date": item.date})}
        for item in question.profile
    ]
    return {"id": question.id, **user, "input": question.input, "profile": profile}
