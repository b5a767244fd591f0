"""The official files of one task: where they lie, and questions paired with their golds.

The server's layout is ``LaMP_n/<part>/<part>_questions.json``, with ``time/`` before it for the
time-based split and ``LaMP_2/new`` for movie tagging. The same files without the folder of the part
are found too. What is malformed is left out, counted and named in the notes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from conf.errors import DataError
from lamp import files
from lamp.files import MalformedError, Outputs, Question, Questions, Sieve
from lamp.labels import normalise_label
from lamp.metrics import HIGHEST_STARS, LOWEST_STARS, is_answer
from lamp.records import Query
from lamp.scripts import is_latin
from lamp.tasks import Task, query_text
from storage.text_files import display_name, shown

# Folders whose files bear a task's name and are of another, and where its own lie.
_OTHERS = {
    "LaMP_2": "LaMP_2 itself holds news categories, the older LaMP-2; movie tagging lies under "
    "LaMP_2/new"
}


@dataclass(frozen=True, slots=True)
class Official:
    """What can be used of a task's two files.

    Attributes:
        where: Name of the question file, for messages.
        questions: Questions that have a gold answer, in file order; with ``split=holdout``, which
            asks none of them, all of the file.
        golds: Question id -> gold answer.
        notes: What was left out.
    """

    where: str
    questions: tuple[Question, ...]
    golds: Mapping[str, str]
    notes: tuple[str, ...]


def file_names(part: str) -> tuple[str, str]:
    """Names of the question and of the output file."""
    return f"{part}_questions.json", f"{part}_outputs.json"


def server_place(task: Task, split: str, part: str) -> str:
    """Folder of the files below the server's address."""
    return f"{'time/' if split == 'time' else ''}{task.folder}/{part}"


def find_files(folder: Path, task: Task, part: str, split: str) -> tuple[Path, Path]:
    """Find a task's question and output file below ``folder``.

    Both splits are looked for, the time-based one first unless ``split`` is "user"; of each the
    server's layout, and the same without the folder of the part.

    Raises:
        DataError: If there is no question file, or no output file beside it (which
            ``split=holdout`` does not need).
    """
    first, second = ("", "time/") if split == "user" else ("time/", "")
    names = dict.fromkeys((task.folder, task.official))
    places = [f"{prefix}{name}" for prefix in (first, second) for name in names]
    for place in places:
        for inner in (f"{place}/{part}", place):
            questions, outputs = (folder / inner / name for name in file_names(part))
            if not questions.is_file():
                continue
            if outputs.is_file() or split == "holdout":
                return questions, outputs
            raise DataError(
                f"{display_name(outputs)}: expected the gold answers beside the questions, there "
                "is no such file; fetch it, or set part=dev where the answers are not public"
            )
    raise DataError(
        f"data folder '{folder.name}': expected {part}_questions.json in one of "
        f"{', '.join(places)} or in {part}/ below them, there is none; check `data`, `part` and "
        f"`task`, or run `python -m sim download task={task.name}`"
    )


def read_official(folder: Path, task: Task, part: str, split: str) -> Official:
    """Find, read and pair a task's files.

    Raises:
        DataError: If a file is missing or broken, belongs to another task, or most of its records
            are malformed.
    """
    questions_path, outputs_path = find_files(folder, task, part, split)
    try:
        if split == "holdout":
            return _read_histories(questions_path, task)
        return _read(questions_path, outputs_path, task)
    except DataError as error:
        place = questions_path.parent
        other = _OTHERS.get(place.parent.name if place.name == part else place.name)
        if other is None:
            raise
        raise DataError(f"{error}. {other}") from None


def _read_histories(path: Path, task: Task) -> Official:
    read = files.read_questions(path, task.fields, numeric=numeric_fields(task))
    return Official(display_name(path), read.questions, {}, tuple(_notes(read.left_out, (), [])))


def numeric_fields(task: Task) -> tuple[str, ...]:
    """Profile fields that may be numbers in a file."""
    return (task.response_field,) if task.pair_labels else ()


def _read(questions_path: Path, outputs_path: Path, task: Task) -> Official:
    read = files.read_questions(questions_path, task.fields, numeric=numeric_fields(task))
    outputs = files.read_outputs(outputs_path, numeric=task.kind != "text")
    _check_task(outputs, task, display_name(outputs_path))
    return pair_up(read, outputs, task, display_name(questions_path))


def pair_up(read: Questions, outputs: Outputs, task: Task, where: str) -> Official:
    """Pair questions with their golds, and labels with the task's spelling.

    Raises:
        DataError: If most of the questions cannot be used, or no record has a label of the task.
    """
    questions = [_with_labels(question, task) for question in read.questions]
    _refuse_strange_labels(questions, task, where)
    asked = Sieve("questions", where)
    paired = [
        pair
        for question in questions
        for pair in asked.take(_paired, question, outputs, task, where)
    ]
    asked.refuse_most()
    identifiers = {question.id for question in read.questions}
    extra = [each for each in outputs.golds if each not in identifiers]
    return Official(
        where=where,
        questions=tuple(question for question, _ in paired),
        golds={question.id: gold for question, gold in paired},
        notes=(
            *_notes((*read.left_out, *asked.left_out), outputs.left_out, extra),
            *_spelling_notes(read.questions, questions),
            *_script_notes([gold for _, gold in paired], task),
        ),
    )


def _with_labels(question: Question, task: Task) -> Question:
    """The question with the labels of its profile as the task writes them, where they are some."""
    if not task.pair_labels:
        return question
    name = task.response_field
    items = tuple(
        item if label in (None, text) else replace(item, fields={**item.fields, name: label})
        for item in question.profile
        for text in (item.fields[name],)
        for label in (normalise_label(task, text),)
    )
    return replace(question, profile=items)


def _refuse_strange_labels(questions: Sequence[Question], task: Task, where: str) -> None:
    """Refuse a file in which no record has a label of the task."""
    name, labels = task.response_field, task.pair_labels
    if labels and not any(item.fields[name] in labels for q in questions for item in q.profile):
        raise DataError(
            f"{where}, field '{name}': expected labels of {task.official} ({', '.join(labels)}), "
            "no profile item has one of them; check that the file is of this task"
        )


def _paired(question: Question, outputs: Outputs, task: Task, where: str) -> tuple[Question, str]:
    """The question with its gold answer, both well-formed."""
    try:
        query_text(task, Query(question.id, question.input, ""))
    except DataError as error:
        raise MalformedError(f"{where}, {error}") from None
    gold = outputs.golds.get(question.id)
    name = f"{where}, question {shown(question.id)}"
    if gold is None:
        raise MalformedError(
            f"{name}: expected a gold answer in the output file, there is none that can be used; "
            "fetch both files again"
        )
    if task.kind != "text":
        gold = normalise_label(task, gold) or gold
    if not is_answer(task, gold):
        raise MalformedError(f"{name}: {_expected_gold(task)}")
    return question, gold


def _expected_gold(task: Task) -> str:
    if task.kind == "classification":
        return (
            f"expected one of the {len(task.labels)} labels of {task.official} as gold, got "
            "another text; correct it, or add a Task record with your own labels"
        )
    if task.kind == "rating":
        return (
            f"expected a gold number of stars from {LOWEST_STARS:g} to {HIGHEST_STARS:g}, got "
            "something else; correct it"
        )
    return "expected a gold text, got a blank one; add it or leave the question out"


def _check_task(outputs: Outputs, task: Task, where: str) -> None:
    if outputs.task != task.official:
        raise DataError(
            f"{where}, field 'task': expected '{task.official}', got {shown(outputs.task)}; "
            "the file belongs to another task, or needs its name corrected"
        )


def _notes(records: tuple[str, ...], golds: tuple[str, ...], extra: list[str]) -> Iterator[str]:
    if records:
        yield f"malformed records that are left out: {len(records)}; the first: {records[0]}"
    if golds:
        yield f"malformed gold answers that are left out: {len(golds)}; the first: {golds[0]}"
    if extra:
        yield (
            f"gold answers without a usable question, which are left out: {len(extra)}; the first: "
            f"{shown(extra[0])}"
        )


def _spelling_notes(read: Sequence[Question], known: Sequence[Question]) -> Iterator[str]:
    changed = sum(
        first is not second and first.fields != second.fields
        for before, after in zip(read, known, strict=True)
        for first, second in zip(before.profile, after.profile, strict=True)
    )
    if changed:
        yield f"labels in another spelling, which count as the task's: {changed}"


def _script_notes(golds: Sequence[str], task: Task) -> Iterator[str]:
    unseen = sum(not is_latin(gold) for gold in golds) if task.kind == "text" else 0
    if unseen:
        yield (
            f"gold answers of which under half of the letters are a-z: {unseen} of {len(golds)}; "
            "ROUGE as LaMP computes it sees a-z and 0-9 only and says little there"
        )
