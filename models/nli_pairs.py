"""Files of NLI pairs: JSON lines with premise, hypothesis and label."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from conf.errors import DataError
from lamp import world
from lamp.world.grammar import Label
from storage.text_files import read_json_lines, shown

NLI_FIELDS = ("premise", "hypothesis", "label")
NliPair = tuple[str, str, Label]


def read_nli(path: Path) -> list[NliPair]:
    """Read JSON lines with premise, hypothesis and label.

    Raises:
        DataError: If the file is missing, empty, or a line lacks a field or has another label.
    """
    lines = read_json_lines(
        path, "set model.build.nli_data, or model.nli.nli_data, to a file of JSON lines"
    )
    pairs = [_nli_pair(path, number, record) for number, record in lines]
    if not pairs:
        raise DataError(f"{path.name}: expected NLI pairs, the file is empty")
    return pairs


def _nli_pair(path: Path, number: int, record: Any) -> NliPair:
    where = f"{path.name} line {number}"
    fields = record if isinstance(record, dict) else {}
    values = [value for name in NLI_FIELDS if isinstance(value := fields.get(name), str)]
    if len(values) < len(NLI_FIELDS):
        raise DataError(
            f"{where}: expected a JSON object with the texts {', '.join(NLI_FIELDS)}; correct or "
            "remove the line"
        )
    premise, hypothesis, label = values
    if (found := label.strip().lower()) not in world.LABELS:
        raise DataError(
            f"{where}, field 'label': expected one of {', '.join(world.LABELS)}, got "
            f"{shown(label)}; correct or remove the line"
        )
    return premise, hypothesis, found
