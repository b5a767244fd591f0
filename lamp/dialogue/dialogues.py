"""Files of dialogues in the formats in which they were published, read into one record.

A reader maps the parsed rows of one file to dialogues and is chosen by the rows' fields, so any of
the files may stand in the folder under any name. Sources of the formats:

    own               {"id", "question", "answer", "domain"}, JSON lines
    Alpaca            {"instruction", "input", "output"}, JSON list (tatsu-lab)
    Dolly             {"instruction", "context", "response", "category"}, JSON lines (databricks)
    Prosocial-Dialog  {"context", "response", "rots", "safety_label", ...}, JSON lines or JSON list
    Empathetic-Dialog conv_id,utterance_idx,context,prompt,speaker_idx,utterance, CSV, "_comma_"
    OpenOrca          {"id", "system_prompt", "question", "response"}, JSON lines or Parquet
    MedDialog         {"description", "utterances": ["patient: ...", "doctor: ..."]}, JSON list,
                      or the raw text with id=, Description, Dialogue, Patient: and Doctor:
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conf.errors import DataError
from storage.text_files import (
    first_words,
    parse_json,
    parse_json_lines,
    read_table,
    read_text,
)

SUFFIXES = (".json", ".jsonl", ".csv", ".parquet", ".txt")
_RAW_MEDDIALOG = re.compile(r"^id=\d+\s*$", re.MULTILINE)
Row = Mapping[str, Any]
Texts = tuple[str | None, str | None, object]  # question, answer, domain


@dataclass(frozen=True, slots=True)
class Dialogue:
    """One question and its answer.

    Attributes:
        id: Unique within the folder.
        question: What the user said.
        answer: What the user wants to hear.
        domain: What it is about, or the name of its collection.
    """

    id: str
    question: str
    answer: str
    domain: str


@dataclass(frozen=True, slots=True)
class Format:
    """One published format.

    Attributes:
        name: Name of the collection, the domain where the rows name none.
        fields: A row with these fields is of this format.
        read: From all rows of a file to (question, answer, domain).
    """

    name: str
    fields: frozenset[str]
    read: Callable[[Sequence[Row], str], Iterable[Texts]]


def read_folder(path: Path) -> tuple[Dialogue, ...]:
    """Read one file, or every file of dialogues in a folder, in the order of their names.

    Null is as good as absent. A dialogue without a question or an answer has "" there.

    Raises:
        DataError: If there is no such file, or one cannot be read as any known format.
    """
    if path.is_dir():
        paths = sorted(each for each in path.iterdir() if each.suffix.lower() in SUFFIXES)
    else:
        paths = [path] if path.is_file() else []
    if not paths:
        raise DataError(
            f"data '{path.name}': expected a file of dialogues or a folder with some "
            f"({', '.join(SUFFIXES)}), there is none; check `data`"
        )
    stems = Counter(each.stem for each in paths)
    found = [
        dialogue
        for each in paths
        for dialogue in read_file(each, each.stem if stems[each.stem] == 1 else each.name)
    ]
    if not found:
        raise DataError(
            f"data '{path.name}': expected dialogues, the files hold none; check `data`"
        )
    return tuple(found)


def read_file(path: Path, name: str = "") -> tuple[Dialogue, ...]:
    """Read one file; the id of a dialogue is ``name``, by default the stem, and its place.

    Raises:
        DataError: As :func:`read_folder`.
    """
    rows = _rows(path)
    if not rows:
        return ()
    chosen = _format_of(rows[0], path)
    try:
        read = [_texts(*each) for each in chosen.read(rows, chosen.name)]
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        name_of_field = f": {error}" if isinstance(error, KeyError) else ""
        raise DataError(
            f"{path.name}: expected rows with {', '.join(sorted(chosen.fields))} as "
            f"{chosen.name} has them, got another row ({type(error).__name__}{name_of_field}); "
            "correct or remove it"
        ) from error
    return tuple(
        Dialogue(f"{name or path.stem}-{place}", question, answer, domain)
        for place, (question, answer, domain) in enumerate(read)
    )


def _texts(question: str | None, answer: str | None, domain: object) -> tuple[str, str, str]:
    """Strip two texts."""
    return (question or "").strip(), (answer or "").strip(), str(domain)


def _rows(path: Path) -> list[Row]:
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _parquet_rows(path)
    if suffix == ".csv":
        return [row for _, row in read_table(path, strict=False).rows]
    text = read_text(path)
    if suffix == ".txt":
        return list(_raw_meddialog(text, path))
    return _json_rows(text, path)


def _json_rows(text: str, path: Path) -> list[Row]:
    """A JSON list, or one JSON object per line whatever the suffix says."""
    if text.lstrip().startswith("["):
        return _objects([(1, parse_json(text, path.name, unique=False))], path)
    return _objects(parse_json_lines(text, path.name, unique=False), path)


def _objects(parts: Iterable[tuple[int, Any]], path: Path) -> list[Row]:
    rows: list[Row] = []
    for number, value in parts:
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(each, dict) for each in values):
            raise DataError(
                f"{path.name}, line {number}: expected JSON objects; see lamp.dialogue.dialogues"
            )
        rows += values
    return rows


def _parquet_rows(path: Path) -> list[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        rows: list[Row] = pyarrow.parquet.read_table(path).to_pylist()
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise DataError(f"{path.name}: {error}; expected a Parquet file") from error
    return rows


def _format_of(row: Row, path: Path) -> Format:
    for each in FORMATS:
        if each.fields <= row.keys():
            return each
    known = "; ".join(f"{each.name}: {', '.join(sorted(each.fields))}" for each in FORMATS)
    raise DataError(
        f"{path.name}: expected the fields of a known format ({known}), got "
        f"{first_words(sorted(map(str, row)))}; rename the fields to question, answer, domain"
    )


def _own(rows: Sequence[Row], name: str) -> Iterator[Texts]:
    for row in rows:
        yield row.get("question"), row.get("answer"), row.get("domain") or name


def _alpaca(rows: Sequence[Row], name: str) -> Iterator[Texts]:
    for row in rows:
        yield _joined(row.get("instruction"), row.get("input")), row.get("output"), name


def _dolly(rows: Sequence[Row], name: str) -> Iterator[Texts]:
    for row in rows:
        question = _joined(row.get("instruction"), row.get("context"))
        yield question, row.get("response"), row.get("category") or name


def _prosocial(rows: Sequence[Row], name: str) -> Iterator[Texts]:
    for row in rows:
        yield row.get("context"), row.get("response"), row.get("safety_label") or name


def _open_orca(rows: Sequence[Row], name: str) -> Iterator[Texts]:
    """The domain is the part of FLAN that the id names: "niv.242684" is of "niv"."""
    for row in rows:
        question = _joined(row.get("system_prompt"), row.get("question"))
        yield question, row.get("response"), str(row.get("id") or name).partition(".")[0]


def _empathetic(rows: Sequence[Row], _name: str) -> Iterator[Texts]:
    """Each listener's turn answers the speaker's turn before it; the domain is the emotion."""
    turns: dict[str, list[Row]] = {}
    for row in rows:
        turns.setdefault(row["conv_id"], []).append(row)
    for conversation in turns.values():
        ordered = sorted(conversation, key=lambda row: int(row["utterance_idx"]))
        for said, answered in zip(ordered[::2], ordered[1::2], strict=False):
            yield _commas(said["utterance"]), _commas(answered["utterance"]), said["context"]


def _meddialog(rows: Sequence[Row], name: str) -> Iterator[Texts]:
    """The patient's first turn and the doctor's answer to it."""
    for row in rows:
        said = row.get("utterances") or ()
        patient, doctor = (_said(said, who) for who in ("patient", "doctor"))
        yield patient or row.get("description"), doctor, name


def _said(utterances: Sequence[str], who: str) -> str:
    for utterance in utterances:
        speaker, _, text = utterance.partition(":")
        if speaker.strip().lower() == who:
            return text.strip()
    return ""


def _raw_meddialog(text: str, path: Path) -> Iterator[Row]:
    """The text files of the release: entries from "id=1" on, turns after "Dialogue"."""
    entries = _RAW_MEDDIALOG.split(text)[1:]
    if not entries:
        raise DataError(
            f"{path.name}: expected MedDialog's raw text with lines id=<n>, got none; "
            "convert it to JSON lines with question, answer, domain"
        )
    for entry in entries:
        description, _, dialogue = entry.partition("\nDialogue")
        turns = re.split(r"^(Patient|Doctor):", dialogue, flags=re.MULTILINE)[1:]
        yield {
            "description": description.partition("Description")[2].strip(),
            "utterances": [
                f"{who}: {' '.join(said.split())}"
                for who, said in zip(turns[::2], turns[1::2], strict=True)
            ],
        }


def _joined(*texts: str | None) -> str:
    return "\n".join(part for text in texts if (part := (text or "").strip()))


def _commas(text: str) -> str:
    return text.replace("_comma_", ",")


FORMATS = (
    Format("own", frozenset({"question", "answer"}), _own),
    Format("alpaca", frozenset({"instruction", "output"}), _alpaca),
    Format("dolly", frozenset({"instruction", "response"}), _dolly),
    Format("open_orca", frozenset({"id", "system_prompt", "question", "response"}), _open_orca),
    Format(
        "empathetic", frozenset({"conv_id", "utterance_idx", "context", "utterance"}), _empathetic
    ),
    Format("prosocial", frozenset({"context", "response", "safety_label"}), _prosocial),
    Format("medical", frozenset({"description", "utterances"}), _meddialog),
)
