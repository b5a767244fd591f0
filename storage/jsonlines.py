"""Append-only JSON lines, each flushed; a torn last line is recognised and left out."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from conf.errors import RunError
from storage.atomic import flush_folder, make_folder, opener
from storage.writing import writing

K = TypeVar("K")
T = TypeVar("T")


def append(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """Append ``records`` to ``path`` and flush them to the disk before returning.

    Raises:
        RunError: If the disk is full or read-only; what was there stays readable.
    """
    lines = "".join(json.dumps(record, sort_keys=True) + "\n" for record in records)
    if not lines:
        return
    with writing(path):
        make_folder(path.parent)
        is_new = not path.exists()
        _drop_torn_tail(path)
        with open(path, "ab", opener=opener(path.parent)) as file:
            file.write(lines.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            flush_folder(path.parent)


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of ``path``; nothing when the file is missing.

    A last line without its newline was cut off by a crash and is left out; the next append
    removes it.

    Raises:
        RunError: If a line that is not torn is no JSON object.
    """
    if not path.is_file():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            if line.strip():
                yield _parse(path, number, line)


def _drop_torn_tail(path: Path) -> None:
    if not path.is_file() or not path.stat().st_size:
        return
    with path.open("rb+") as file:
        file.seek(-1, os.SEEK_END)
        if file.read(1) == b"\n":
            return
        content = path.read_bytes()
        file.truncate(content.rfind(b"\n") + 1)


def _parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise RunError(
            f"{path.name} line {number}: expected a JSON object, got a broken line; "
            "the file was changed by hand or by a faulty disk"
        ) from error
    if not isinstance(value, dict):
        raise RunError(
            f"{path.name} line {number}: expected a JSON object, got {type(value).__name__}"
        )
    return value


def whole(
    rows: Iterable[T],
    group: Callable[[T], K],
    line: Callable[[T], object],
    count: Callable[[T], int | None],
) -> Iterator[tuple[K, list[T]]]:
    """Yield groups of rows that were written together, each when its last row is there.

    A crash may leave the first rows of a group behind; those count as nothing. A group that is
    written again is yielded again.

    Args:
        rows: In the order of the file.
        group: Names the group of a row.
        line: Names the row in its group; of several with one name the last counts.
        count: How many rows the group has; None where any row may be the last.
    """
    given: dict[K, dict[object, T]] = {}
    for row in rows:
        name = group(row)
        own = given.setdefault(name, {})
        own[line(row)] = row
        if count(row) in (None, len(own)):
            yield name, list(own.values())
