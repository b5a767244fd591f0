"""Files of candidates: a run leaves what was written and scored, another one reads it.

With ``augmenter.save`` a run leaves its candidates in ``candidates.jsonl``, with all scores and the
hash of the record that each was made from, never the record. ``augmenter=replay`` reads such a file
in the place of the cloud's models: one machine generates, others go on from there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from conf.errors import DataError
from lamp.records import Pair
from storage import atomic
from storage.text_files import display_name, read_json_lines, shown
from strategy.augmentation import NO_REPLY, record_hash
from strategy.filters import Candidate, Scores
from strategy.progress import Progress

FILE = "candidates.jsonl"
NOT_IN_FILE = "not_in_file"
NAMED = 5  # records that a note names

Candidates = dict[str, tuple[Candidate, ...]]
Shared = Mapping[str, Sequence[Pair]]
Samples = Mapping[tuple[str, int], Candidate]  # (record hash, sample index) -> candidate


def save(path: Path, candidates: Candidates, shared: Shared) -> None:
    """Write candidates as JSON lines, those of a record that several users share once."""
    rows: dict[str, None] = {}
    for user, own in candidates.items():
        per_record = len(own) // len(shared[user]) if own else 1
        for place, candidate in enumerate(own):
            if candidate.unreadable in (NO_REPLY, NOT_IN_FILE):
                continue
            record = record_hash(shared[user][place // per_record])
            rows[_to_line(record, place % per_record, candidate)] = None
    atomic.write_text(path, "".join(rows))


def forget(path: Path, records: Iterable[str]) -> None:
    """Drop the candidates of these records, named by their hashes, from a run's file."""
    if path.is_file():
        gone = set(records)
        rows = (row for _, row in read_json_lines(path))
        atomic.write_text(path, "".join(_line(row) for row in rows if row["record"] not in gone))


def replay(path: Path, shared: Shared, k: int, progress: Progress) -> Candidates:
    """Take ``k`` candidates of every shared record from a file; no model is asked.

    A sample that the file does not have counts as rejected, and its record is named.

    Raises:
        DataError: If the file is missing or a line is malformed.
    """
    samples = read(path)
    missing = [
        f"{user}/{pair.id}"
        for user, pairs in shared.items()
        for pair in pairs
        if any((record_hash(pair), index) not in samples for index in range(k))
    ]
    if missing:
        more = ", ..." if len(missing) > NAMED else ""
        progress.note(
            f"{path.name}: shared records with fewer than {k} candidates there: {len(missing)} "
            f"({', '.join(missing[:NAMED])}{more})"
        )
    return {
        user: tuple(
            _of(pair, index, samples.get((record_hash(pair), index)))
            for pair in pairs
            for index in range(k)
        )
        for user, pairs in shared.items()
    }


def _of(pair: Pair, index: int, sample: Candidate | None) -> Candidate:
    if sample is None:
        return Candidate(pair.id, None, NOT_IN_FILE, None)
    written = sample.pair and replace(sample.pair, id=f"{pair.id}/{index}")
    return replace(sample, source_id=pair.id, pair=written)


def read(path: Path) -> Samples:
    """Read a file of candidates.

    Raises:
        DataError: If it is missing, or a line is no candidate; the message names the line.
    """
    samples: dict[tuple[str, int], Candidate] = {}
    where = display_name(path)
    for number, row in read_json_lines(path, f"set augmenter.file to the {FILE} of a finished run"):
        try:
            record, index, candidate = _from_row(row)
        except _MalformedError as error:
            raise DataError(f"{where} line {number}: {error}") from None
        if samples.setdefault((record, index), candidate) != candidate:
            raise DataError(
                f"{where} line {number}: expected one candidate {index} of record "
                f"{shown(record[:12])}, got a second one; remove one of the lines"
            )
    if not samples:
        raise DataError(f"{where}: expected candidates, one a line, got none")
    return samples


class _MalformedError(Exception):
    """A line is no candidate; the text says why."""


def _to_line(record: str, index: int, candidate: Candidate) -> str:
    pair = candidate.pair
    row = {
        "record": record,
        "index": index,
        "writer": candidate.writer,
        "unreadable": candidate.unreadable,
        "input": pair and pair.input,
        "response": pair and pair.response,
        "scores": candidate.scores and asdict(candidate.scores),
    }
    return _line(row)


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def _from_row(row: Any) -> tuple[str, int, Candidate]:
    if not isinstance(row, dict):
        raise _MalformedError("expected one JSON object")
    record, index = _value(row, "record", str), _value(row, "index", int)
    writer, reason = _value(row, "writer", str, ""), _value(row, "unreadable", str, None)
    if index < 0:
        raise _MalformedError(f"field 'index': expected 0 or more, got {index}")
    if reason is not None:
        return record, index, Candidate("", None, reason, None, writer=writer)
    pair = Pair("", _value(row, "input", str), _value(row, "response", str))
    scores = _scores(_value(row, "scores", dict))
    return record, index, Candidate("", pair, None, scores, writer=writer)


def _scores(row: Mapping[str, Any]) -> Scores:
    names = [field.name for field in fields(Scores)]
    values = {name: float(_value(row, name, int | float)) for name in names}
    return Scores(**values)


_REQUIRED = object()


def _value(row: Mapping[str, Any], name: str, kind: Any, default: Any = _REQUIRED) -> Any:
    """Field ``name`` of ``row``; the default stands for one that is missing or null."""
    value = row.get(name)
    if value is None and default is not _REQUIRED:
        return default
    if not isinstance(value, kind) or isinstance(value, bool):
        expected = getattr(kind, "__name__", "number")
        raise _MalformedError(f"field '{name}': expected {expected}, got {_shown(value)}")
    return value


def _shown(value: Any) -> str:
    return "nothing" if value is None else type(value).__name__
