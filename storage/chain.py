"""JSON lines of which each carries the hash of the one before it.

A line that was removed, changed or moved breaks the chain at that place. Whoever can write the file
can also compute a whole new chain: what that changes shows beside another party's copy, or beside a
:class:`Head` that was noted elsewhere.

    {..., "previous": <hash of the line before, "" for the first>, "line": <hash of this one>}
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage import jsonlines
from storage.hashing import hash_json

PREVIOUS = "previous"
LINE = "line"
TAIL_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Head:
    """How far a chain had come at some moment: number of its lines, hash of the last one."""

    lines: int
    line: str


def linked(records: Iterable[dict[str, Any]], previous: str) -> Iterator[dict[str, Any]]:
    """Add the two hashes to ``records``, which follow the line with the hash ``previous``."""
    for record in records:
        line = {**record, PREVIOUS: previous}
        line[LINE] = previous = hash_json(line)
        yield line


def append(path: Path, records: Iterable[dict[str, Any]], previous: str | None = None) -> str:
    """Append ``records`` to the chain in ``path``.

    Args:
        path: The file.
        records: What to append.
        previous: Hash of the last line, where the caller knows it.

    Returns:
        The hash of the new last line.
    """
    before = str(last(path).get(LINE, "")) if previous is None else previous
    lines = list(linked(records, before))
    jsonlines.append(path, lines)
    return str(lines[-1][LINE]) if lines else before


def last(path: Path) -> dict[str, Any]:
    """The last whole line, {} where there is none; only the end of the file is read."""
    if not path.is_file():
        return {}
    with path.open("rb") as file:
        size, taken = file.seek(0, os.SEEK_END), TAIL_BYTES
        while True:
            file.seek(max(0, size - taken))
            lines = file.read().split(b"\n")[:-1]  # behind the last newline stands a torn line
            if len(lines) > 1 or taken >= size:
                break
            taken *= 2
    value: dict[str, Any] = json.loads(lines[-1]) if lines else {}
    return value


def faults(path: Path, head: Head | None = None) -> list[str]:
    """What is wrong with the chain in ``path``, one clause each; nothing for a sound one.

    Args:
        path: The file.
        head: How far it had come once; what is missing since then is told.
    """
    found, previous, number = [], "", 0
    for number, line in enumerate(jsonlines.read(path), start=1):
        rest = {key: value for key, value in line.items() if key != LINE}
        if line.get(LINE) != hash_json(rest):
            found.append(f"line {number} was changed")
        elif line.get(PREVIOUS) != previous:
            found.append(f"before line {number} a line is missing or was moved")
        if head is not None and number == head.lines and line.get(LINE) != head.line:
            found.append(f"line {number} is not the one that stood there at the end of the run")
        previous = str(line.get(LINE, ""))
    if head is not None and number < head.lines:
        found.append(f"{head.lines - number} lines are missing at the end")
    return found
