"""Official LaMP files: all that is read is checked, all that is written can be read again.

A question file is a list of {id, input, profile, user_id?}, its profile a list of {id, date?, text
fields}; an output file is {task, golds: [{id, output}]}, and predictions have the same form. JSON
lines of questions are read too, numbers stand for ids and labels as well as strings do, and null
and an empty date are as good as nothing.

A malformed record is left out and named; where most are, or what the file is cannot be told, the
reading ends with a :class:`DataError`. Messages name records by their ids and never quote a text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from conf.errors import DataError
from lamp.records import ProfileItem
from lamp.tasks import Task
from storage import atomic
from storage.text_files import display_name, parse_json, parse_json_lines, read_text, shown

_JSON_TYPES: dict[type, str] = {
    type(None): "null",
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "a list",
    dict: "an object",
}
T = TypeVar("T")
_MISSING = object()
_ADD = "add the field or leave the record out"
_STRING = "write it as a string"
_FETCH = "check `data` and `part`, or fetch it with `python -m sim download task=…`"
MOST = 0.5  # a file of which a larger share is malformed is refused


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
class Questions:
    """A question file.

    Attributes:
        questions: The questions that are well-formed, in file order; at least one.
        left_out: What was left out and why, one message a record.
    """

    questions: tuple[Question, ...]
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outputs:
    """An output file: the gold answers, or the predictions, of one task by question id.

    Attributes:
        task: LaMP's name of the task.
        golds: Question id -> answer.
        left_out: What was left out and why, one message a record.
    """

    task: str
    golds: Mapping[str, str]
    left_out: tuple[str, ...] = ()


class MalformedError(DataError):
    """One record cannot be used; the others may."""


@dataclass(slots=True)
class Sieve:
    """Takes well-formed records and keeps the reasons why others were left out.

    Attributes:
        noun: What the records are, in the plural.
        where: Name of the file.
        left_out: One message per record that was left out.
        total: Records seen.
    """

    noun: str
    where: str
    left_out: list[str] = field(default_factory=list)
    total: int = 0

    def take(self, read: Callable[..., T], *arguments: Any) -> Iterator[T]:
        """Yield what ``read`` makes of a record; nothing where the record is malformed."""
        self.total += 1
        try:
            yield read(*arguments)
        except MalformedError as error:
            self.left_out.append(str(error))

    def refuse_most(self) -> None:
        """Refuse the file when most of its records are malformed.

        Raises:
            DataError: With the first of the reasons.
        """
        if len(self.left_out) > MOST * self.total:
            raise DataError(
                f"{self.left_out[0]} ({len(self.left_out)} of the {self.total} {self.noun} of "
                f"{self.where} are malformed: check that the file is of this task and form)"
            )


def read_questions(
    path: Path, fields: Sequence[str] = (), numeric: Collection[str] = ()
) -> Questions:
    """Read and check a question file.

    Args:
        path: ``<part>_questions.json``.
        fields: Text fields that every profile item must have, not blank.
        numeric: Those of them that may be numbers.

    Raises:
        DataError: If the file is missing or broken, two questions have one id, or most questions or
            most profile items are malformed: lack a field, or have a value of the wrong type.
    """
    where = display_name(path)
    entries = expect(load(path), list, where, "the official form is a list of questions")
    if not entries:
        raise DataError(f"{where}: expected questions, got an empty list; fetch the file again")
    refuse_duplicates(entries, where, "question")
    asked, items = Sieve("questions", where), Sieve("profile items", where)
    reader = QuestionReader(where, fields, numeric, items)
    questions = tuple(
        question
        for number, entry in enumerate(entries, start=1)
        for question in asked.take(reader.read, entry, number)
    )
    items.refuse_most()
    asked.refuse_most()
    return Questions(questions, (*asked.left_out, *items.left_out))


def read_outputs(path: Path, numeric: bool = False) -> Outputs:
    """Read and check an output file, gold answers or predictions.

    Args:
        path: ``<part>_outputs.json``.
        numeric: Whether answers may be numbers.

    Raises:
        DataError: If the file is missing or broken, two golds have one id, or most golds are
            malformed.
    """
    where = display_name(path)
    content = expect(load(path), dict, where, "the official form is {task, golds}")
    task = text_field(content, "task", where)
    entries = expect(content.get("golds", _MISSING), list, f"{where}, field 'golds'", _ADD)
    refuse_duplicates(entries, where, "gold")
    sieve = Sieve("golds", where)
    golds = dict(
        gold
        for number, entry in enumerate(entries, start=1)
        for gold in sieve.take(_gold, entry, number, where, numeric)
    )
    sieve.refuse_most()
    return Outputs(task, golds, tuple(sieve.left_out))


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


def load(path: Path) -> Any:
    """Parse a file of JSON, or of JSON lines, which gives a list.

    Raises:
        DataError: If it is missing or broken.
    """
    where, text = display_name(path), read_text(path, _FETCH)
    try:
        return parse_json(text, where, unique=False)
    except DataError:
        lines = [line for line in text.split("\n", 2)[:2] if line.strip()]
        if len(lines) == 2 and all(line.startswith("{") for line in lines):
            return [value for _, value in parse_json_lines(text, where, unique=False)]
        raise


@dataclass(frozen=True, slots=True)
class QuestionReader:
    """Reads the questions of one file; malformed profile items go into ``items``."""

    where: str
    fields: Sequence[str]
    numeric: Collection[str]
    items: Sieve

    def read(self, entry: Any, number: int) -> Question:
        """Read one entry of a question file."""
        where = f"{self.where}, question number {number}"
        record = expect(entry, dict, where, "a question is an object with id, input and profile")
        identifier = id_field(record, "id", where)
        where = f"{self.where}, question {shown(identifier)}"
        text = text_field(record, "input", where)
        profile = expect(record.get("profile", _MISSING), list, f"{where}, field 'profile'", _ADD)
        items = self.profile(profile, where)
        if not items:
            got = "none that can be used" if profile else "none"
            raise MalformedError(
                f"{where}, field 'profile': expected at least one item, got {got}; "
                "leave users without a history out of the file"
            )
        user_id = None if record.get("user_id") is None else id_field(record, "user_id", where)
        return Question(identifier, text, items, user_id)

    def profile(self, profile: list[Any], where: str) -> tuple[ProfileItem, ...]:
        """Read the items of one history."""
        places: dict[str, int] = {}
        return tuple(
            item
            for number, entry in enumerate(profile, start=1)
            for item in self.items.take(self._item, entry, number, where, places)
        )

    def _item(self, entry: Any, number: int, question: str, places: dict[str, int]) -> ProfileItem:
        where = f"{question}, profile item number {number}"
        record = expect(entry, dict, where, "a profile item is an object with id and text fields")
        identifier = id_field(record, "id", where)
        where = f"{question}, profile item {shown(identifier)}"
        for name in self.fields:
            if not text_field(record, name, where, name in self.numeric).strip():
                raise MalformedError(f"{where}, field '{name}': expected a text, got blank; {_ADD}")
        texts = {
            name: text_field(record, name, where, name in self.numeric)
            for name, value in record.items()
            if name not in ("id", "date") and value is not None
        }
        if identifier in places:
            raise MalformedError(
                f"{where}, field 'id': expected a unique id, item number {number} repeats that of "
                f"item number {places[identifier]}; rename or remove one"
            )
        places[identifier] = number
        return ProfileItem(identifier, texts, _date(record, where))


def _gold(entry: Any, number: int, file: str, numeric: bool) -> tuple[str, str]:
    where = f"{file}, gold number {number}"
    record = expect(entry, dict, where, "a gold is an object with id and output")
    identifier = id_field(record, "id", where)
    return identifier, text_field(record, "output", f"{file}, gold {shown(identifier)}", numeric)


def _date(record: dict[str, Any], where: str) -> str | None:
    """Read the date; OPPU's files have years as numbers, which become strings here."""
    value = record.get("date")
    if value is None or value == "":
        return None
    return text_field(record, "date", where, number=True).strip() or None


def id_field(record: dict[str, Any], name: str, where: str) -> str:
    """An id in ``record``, a string or a number.

    Raises:
        MalformedError: If there is none.
    """
    identifier = text_field(record, name, where, number=True)
    if not identifier:
        raise MalformedError(
            f"{where}, field '{name}': expected an id, got an empty string; {_ADD}"
        )
    return identifier


def text_field(record: dict[str, Any], name: str, where: str, number: bool = False) -> str:
    """A text in ``record``; with ``number`` a number counts as one.

    Raises:
        MalformedError: If there is none.
    """
    value = record.get(name, _MISSING)
    if number and type(value) in (int, float):
        whole = type(value) is float and value.is_integer()  # pandas makes 2011.0 of 2011
        return str(int(value) if whole else value)
    remedy = _ADD if value is _MISSING or value is None else _STRING
    text: str = expect(value, str, f"{where}, field {shown(name)}", remedy)
    return text


def expect(value: Any, kind: type, where: str, remedy: str) -> Any:
    """Return ``value`` where it is of ``kind``.

    Raises:
        MalformedError: If it is not; the message ends with the remedy.
    """
    if isinstance(value, kind):
        return value
    raise MalformedError(f"{where}: expected {_JSON_TYPES[kind]}, got {_found(value)}; {remedy}")


def _found(value: Any) -> str:
    """Name a value without quoting a text: its type, and numbers or keys as they are."""
    if value is _MISSING:
        return "nothing"
    name = _JSON_TYPES[type(value)]
    if type(value) in (bool, int, float):
        return f"{name} ({shown(json.dumps(value))[1:-1]})"
    if isinstance(value, dict) and value:
        return f"{name} with the keys {', '.join(shown(key) for key in list(value)[:4])}"
    return name


def refuse_duplicates(entries: Iterable[Any], where: str, noun: str) -> None:
    """Refuse entries of which two have one id.

    Raises:
        DataError: Naming both.
    """
    places: dict[str, int] = {}
    for number, entry in enumerate(entries, start=1):
        value = entry.get("id") if isinstance(entry, dict) else None
        if type(value) not in (int, str):
            continue
        first = places.setdefault(str(value), number)
        if first != number:
            raise DataError(
                f"{where}, {noun} {shown(str(value))}, field 'id': expected a unique id, {noun} "
                f"number {number} repeats that of {noun} number {first}; rename or remove one"
            )


def _plain(question: Question) -> dict[str, Any]:
    user = {} if question.user_id is None else {"user_id": question.user_id}
    profile = [
        {"id": item.id, **item.fields, **({} if item.date is None else {"date": item.date})}
        for item in question.profile
    ]
    return {"id": question.id, **user, "input": question.input, "profile": profile}
