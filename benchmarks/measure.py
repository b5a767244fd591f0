"""Timing several ways of doing one thing in one process, and the table of it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch

RESULTS = Path(__file__).with_name("RESULTS.md")
INTRODUCTION = """\
# Results

Appended by `python -m benchmarks`; newest last. The ratios of a table were measured side by side,
in turns, in one process; each time is the best of its rounds. Times of two tables do not compare.
"""


@dataclass(frozen=True, slots=True)
class Way:
    """One way of doing the thing.

    Attributes:
        name: Row in the table.
        run: Does it for ``units`` units; returns what the column ``result`` shows, to tell that
            the work was done.
        units: Users, records or pairs of one run.
    """

    name: str
    run: Callable[[], str]
    units: int


@dataclass(frozen=True, slots=True)
class Row:
    """What one way took.

    Attributes:
        name: The way.
        seconds: Wall seconds per unit, best of all rounds; None where it could not run.
        result: What it said of its result, or why it could not run.
    """

    name: str
    seconds: float | None
    result: str


@dataclass(frozen=True, slots=True)
class Table:
    """One measurement.

    Attributes:
        title: What was asked.
        setting: Sizes, in words.
        unit: What seconds are counted per.
        result: Heading of the column ``Row.result``.
        rows: One per way.
    """

    title: str
    setting: str
    unit: str
    result: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table of other columns than times and ratios.

    Attributes:
        setting: Sizes, in words.
        heads: Headings of the columns.
        rows: Cells.
        notes: What is to be said below.
    """

    setting: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: str = ""


def measure(ways: Sequence[Way], rounds: int) -> tuple[Row, ...]:
    """Time the ways in turns; the first round is a warm-up unless it is the only one.

    A way that raises ``ImportError`` is reported as not installed, one that needs more memory than
    the GPU has as out of memory.
    """
    best: dict[str, Row] = {}
    for number in range(rounds):
        for way in ways:
            row = _timed(way)
            print(
                f"{way.name}: {_seconds(row)} s each, round {number + 1}",
                file=sys.stderr,
                flush=True,
            )
            known = best.get(way.name)
            if known is None or number == 1 or (row.seconds or 0.0) < (known.seconds or 0.0):
                best[way.name] = row
    return tuple(best[way.name] for way in ways)


def markdown(table: Table | Sheet) -> str:
    """Write a table; of times with how many times faster each row is than each one above it."""
    return _sheet(table) if isinstance(table, Sheet) else _times_table(table)


def _sheet(sheet: Sheet) -> str:
    lines = [_line(sheet.heads), f"|{'---|' * len(sheet.heads)}", *map(_line, sheet.rows)]
    return "\n".join([f"{sheet.setting}\n", *lines, *([f"\n{sheet.notes}"] if sheet.notes else [])])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _times_table(table: Table) -> str:
    rows = table.rows
    letters = [f"({chr(ord('a') + index)})" for index in range(len(rows))]
    head = ["", table.title, f"s per {table.unit}", *(f"× {letter}" for letter in letters[:-1])]
    lines = [_line([*head, table.result]), f"|{'---|' * (len(head) + 1)}"]
    for letter, row in zip(letters, rows, strict=True):
        times = [_times(other, row) for other in rows[:-1]]
        lines.append(_line([letter, row.name, _seconds(row), *times, row.result]))
    return "\n".join([f"{table.setting}\n", *lines])


def append(name: str, tables: Sequence[Table | Sheet], path: Path = RESULTS) -> str:
    """Append tables with commit and machine to ``path``; returns what was appended."""
    text = "\n\n".join([f"## {name}, {date.today()}\n\n{machine()}", *map(markdown, tables)])
    before = path.read_text(encoding="utf-8") if path.exists() else INTRODUCTION
    path.write_text(f"{before}\n{text}\n", encoding="utf-8")
    return text


def machine() -> str:
    """Commit, processor, threads and versions in one line."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft"))
    threads = torch.get_num_threads()
    return (
        f"Commit {_commit()}; {os.cpu_count()} cores ({_processor()}), {threads} threads, "
        f"{device}; Python {platform.python_version()}, {libraries}."
    )


def _timed(way: Way) -> Row:
    started = time.perf_counter()
    try:
        result = way.run()
    except ImportError as error:
        return Row(way.name, None, f"not installed: {error.name}")
    except torch.OutOfMemoryError:
        return Row(way.name, None, "out of memory")
    return Row(way.name, (time.perf_counter() - started) / way.units, result)


def _times(other: Row, row: Row) -> str:
    if other.seconds is None or row.seconds is None:
        return "–"
    return f"{other.seconds / row.seconds:.2f}"


def _seconds(row: Row) -> str:
    return "–" if row.seconds is None else f"{row.seconds:.4g}"


@cache
def _commit() -> str:  # once, before the first table makes the tree another one
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=RESULTS.parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
