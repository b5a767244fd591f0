"""Frozen message records to Flower RecordDicts and back, field by field.

Numbers travel in a MetricRecord named "numbers", texts and flags in a ConfigRecord named "texts",
and a tuple of pairs in ConfigRecords "<field>.0", "<field>.1", ... with parallel lists id, input
and response, each at most :data:`MAX_PART_BYTES`, as the deployment engine posts a record whole.
Named arrays travel in an ArrayRecord of the field's name; a message without arrays leaves it out.
Every field states what it holds with :func:`holds`; the wire table is checked against that.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, field, fields
from functools import lru_cache
from typing import Any, ClassVar, Protocol, TypeVar, cast, get_args, get_origin, get_type_hints

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from numpy.typing import NDArray

from conf.errors import ProtocolError
from lamp.records import Pair

NUMBERS = "numbers"
TEXTS = "texts"
MAX_PART_BYTES = 8 << 20
_PAIR_COLUMNS = ("id", "input", "response")


class WireMessage(Protocol):
    """A message body: a frozen dataclass that names its Flower message type."""

    TYPE: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Any]]


M = TypeVar("M", bound=WireMessage)
Arrays = Mapping[str, NDArray[Any]]


def holds(content: str, absent: Any = MISSING) -> Any:
    """Declare what a message field holds, in the words of the wire table.

    Args:
        content: What the field holds.
        absent: Its value where most messages have none; ``dict`` for no arrays.
    """
    if absent is dict:
        return field(default_factory=dict, metadata={"holds": content})
    return field(default=absent, metadata={"holds": content})


def encode(message: WireMessage) -> RecordDict:
    """Turn a message body into a RecordDict."""
    hints = _hints(type(message))
    records = RecordDict()
    numbers: dict[str, Any] = {}
    texts: dict[str, Any] = {}
    for each in fields(message):
        value, hint = getattr(message, each.name), hints[each.name]
        if _is_pairs(hint):
            records.update(_encode_pairs(each.name, value))
        elif _is_arrays(hint):
            records.update(_encode_arrays(each.name, value))
        elif _is_number(hint):
            numbers[each.name] = list(value) if isinstance(value, tuple) else value
        else:
            texts[each.name] = _clean(value)
    records[NUMBERS] = MetricRecord(numbers)
    records[TEXTS] = ConfigRecord(texts)
    return records


def decode(kind: type[M], records: RecordDict) -> M:
    """Rebuild a message body.

    Raises:
        ProtocolError: If a field is missing or of another type, or if an unknown one came.
    """
    hints = _hints(kind)
    try:
        numbers, texts = records.metric_records[NUMBERS], records.config_records[TEXTS]
        values = {
            name: _decode_field(name, hint, numbers, texts, records) for name, hint in hints.items()
        }
    except KeyError as error:
        raise ProtocolError(
            f"{kind.TYPE}: field {error.args[0]!r} is missing in the message; "
            "both sides must run the same version"
        ) from error
    unknown = sorted((set(numbers) | set(texts) | set(records.array_records)) - set(hints))
    if unknown:
        raise ProtocolError(
            f"{kind.TYPE}: expected the fields {sorted(hints)}, got also {unknown}; "
            "both sides must run the same version"
        )
    return kind(**values)


def _decode_field(
    name: str, hint: Any, numbers: MetricRecord, texts: ConfigRecord, records: RecordDict
) -> Any:
    if _is_pairs(hint):
        return tuple(_decode_pairs(name, records))
    if _is_arrays(hint):
        return _decode_arrays(name, records)
    source: Any = numbers if _is_number(hint) else texts
    value = source[name]
    if get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise ProtocolError(f"field {name!r}: expected a list, got {type(value).__name__}")
        item = get_args(hint)[0]
        return tuple(item(each) for each in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint):
        raise ProtocolError(f"field {name!r}: expected {hint.__name__}, got {type(value).__name__}")
    return value


def _encode_pairs(name: str, pairs: Sequence[Pair]) -> dict[str, ConfigRecord]:
    parts = list(_parts(pairs)) or [()]
    return {
        f"{name}.{number}": ConfigRecord(
            {column: [_clean(getattr(pair, column)) for pair in part] for column in _PAIR_COLUMNS}
        )
        for number, part in enumerate(parts)
    }


def _parts(pairs: Sequence[Pair]) -> Iterator[tuple[Pair, ...]]:
    part: list[Pair] = []
    size = 0
    for pair in pairs:
        added = sum(len(_clean(getattr(pair, column)).encode()) for column in _PAIR_COLUMNS)
        if part and size + added > MAX_PART_BYTES:
            yield tuple(part)
            part, size = [], 0
        part.append(pair)
        size += added
    if part:
        yield tuple(part)


def _decode_pairs(name: str, records: RecordDict) -> Iterator[Pair]:
    number = 0
    while (key := f"{name}.{number}") in records.config_records:
        record = records.config_records[key]
        columns = [cast("list[str]", record[column]) for column in _PAIR_COLUMNS]
        if len({len(column) for column in columns}) != 1:
            raise ProtocolError(f"{key}: expected {_PAIR_COLUMNS} of equal length")
        yield from (Pair(*row) for row in zip(*columns, strict=True))
        number += 1
    if not number:
        raise KeyError(f"{name}.0")


def _encode_arrays(name: str, arrays: Arrays) -> dict[str, ArrayRecord]:
    if not arrays:
        return {}
    return {name: ArrayRecord({key: Array(np.asarray(value)) for key, value in arrays.items()})}


def _decode_arrays(name: str, records: RecordDict) -> Arrays:
    if name not in records.array_records:
        return {}
    arrays = {key: array.numpy() for key, array in records.array_records[name].items()}
    for key, array in arrays.items():
        if array.dtype.kind not in "fiu":
            raise ProtocolError(f"field {name!r}, {key!r}: expected numbers, got {array.dtype}")
    return arrays


def _clean(value: Any) -> Any:
    """Replace lone surrogates: they pass in the simulation and fail in the deployment engine."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, tuple):
        return [_clean(each) for each in value]
    return value


def _is_pairs(hint: Any) -> bool:
    return get_origin(hint) is tuple and get_args(hint)[0] is Pair


def _is_arrays(hint: Any) -> bool:
    return get_origin(hint) is Mapping


def _is_number(hint: Any) -> bool:
    item = get_args(hint)[0] if get_origin(hint) is tuple else hint
    return item in (int, float)


@lru_cache(maxsize=32)
def _hints(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    hints.pop("TYPE", None)
    for name, hint in hints.items():
        if _is_arrays(hint):
            continue
        item = get_args(hint)[0] if get_origin(hint) is tuple else hint
        if isinstance(hint, types.UnionType) or item not in (int, float, str, bool, bytes, Pair):
            raise ProtocolError(f"{kind.__name__}.{name}: {hint} cannot cross the wire")
    return hints
