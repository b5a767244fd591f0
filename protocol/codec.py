"""Frozen message records to Flower RecordDicts and back, field by field.

Numbers travel in a MetricRecord named "numbers", texts and flags in a ConfigRecord named "texts",
and a tuple of pairs in ConfigRecords "<field>.0", "<field>.1", ... with parallel lists id, input
and response, each at most :data:`MAX_PART_BYTES`, as the deployment engine posts a record whole.
Named arrays travel in an ArrayRecord of the field's name; a message without arrays leaves it out.
Every field states what it holds with :func:`holds`; the wire table is checked against that. Nothing
that comes is cast: type, range and size of every field are what its message says, or it is refused.
"""

from __future__ import annotations

import io
import math
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
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
_NUMPY = "numpy.ndarray"
_PAIR_COLUMNS = ("id", "input", "response")


class WireMessage(Protocol):
    """A message body: a frozen dataclass that names its Flower message type."""

    TYPE: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Any]]


M = TypeVar("M", bound=WireMessage)
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Range:
    """What a field may hold; a number outside, or one that is not finite, is refused.

    Attributes:
        low: Least number.
        high: Largest number.
        undefined: Whether nan may stand for a number that there is none of.
        most: Most items of a list, or characters of a text.
    """

    low: float = 0
    high: float = 1 << 53
    undefined: bool = False
    most: int = 1 << 22


def holds(content: str, absent: Any = MISSING, within: Range = Range()) -> Any:
    """Declare what a message field holds, in the words of the wire table.

    Args:
        content: What the field holds.
        absent: Its value where most messages have none; ``dict`` for no arrays.
        within: Numbers and sizes that are taken.
    """
    metadata = {"holds": content, "range": within}
    if absent is dict:
        return field(default_factory=dict, metadata=metadata)
    return field(default=absent, metadata=metadata)


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
        ranges = _ranges(kind)
        values = {
            name: _decode_field(name, hint, ranges[name], numbers, texts, records)
            for name, hint in hints.items()
        }
    except KeyError as error:
        raise ProtocolError(
            f"{kind.TYPE}: field {error.args[0]!r} is missing in the message; "
            "both sides must run the same version"
        ) from error
    known = {NUMBERS, TEXTS, *hints, *(f"{name}.{part}" for name, part in _part_names(records))}
    unknown = sorted((set(records) - known) | (set(numbers) | set(texts)) - set(hints))
    if unknown:
        raise ProtocolError(
            f"{kind.TYPE}: expected the fields {sorted(hints)}, got also {unknown}; "
            "both sides must run the same version"
        )
    return kind(**values)


def _decode_field(
    name: str,
    hint: Any,
    within: Range,
    numbers: MetricRecord,
    texts: ConfigRecord,
    records: RecordDict,
) -> Any:
    if _is_pairs(hint):
        return tuple(_decode_pairs(name, within, records))
    if _is_arrays(hint):
        return _decode_arrays(name, records)
    source: Any = numbers if _is_number(hint) else texts
    value = source[name]
    if get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise ProtocolError(f"field {name!r}: expected a list, got {type(value).__name__}")
        _require_size(name, len(value), within)
        item = get_args(hint)[0]
        return tuple(_decode_value(name, item, within, each) for each in value)
    return _decode_value(name, hint, within, value)


def _decode_value(name: str, hint: Any, within: Range, value: Any) -> Any:
    """One text, flag or number, of exactly its type; a whole number may stand for a float."""
    if hint is float and type(value) is int:
        value = float(value)
    if type(value) is not hint:
        raise ProtocolError(f"field {name!r}: expected {hint.__name__}, got {type(value).__name__}")
    if hint in (str, bytes):
        _require_size(name, len(value), within)
    elif hint in (int, float):
        undefined = within.undefined and math.isnan(value)
        if not undefined and not within.low <= value <= within.high:  # nan is in no range
            raise ProtocolError(
                f"field {name!r}: expected numbers in [{within.low:g}, {within.high:g}], got others"
            )
    return value


def _require_size(name: str, size: int, within: Range) -> None:
    if size > within.most:
        raise ProtocolError(f"field {name!r}: expected at most {within.most}, got {size}")


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


def _part_names(records: RecordDict) -> Iterator[tuple[str, int]]:
    """Names of the records that hold pairs, with their numbers."""
    for key in records:
        name, _, part = key.rpartition(".")
        if name and part.isascii() and part.isdigit():
            yield name, int(part)


def _decode_pairs(name: str, within: Range, records: RecordDict) -> Iterator[Pair]:
    number = 0
    while (key := f"{name}.{number}") in records.config_records:
        record = records.config_records[key]
        columns = [cast("list[str]", record[column]) for column in _PAIR_COLUMNS]
        if set(record) != set(_PAIR_COLUMNS) or not all(map(_is_texts, columns)):
            raise ProtocolError(f"{key}: expected lists of texts {_PAIR_COLUMNS}, got others")
        if len({len(column) for column in columns}) != 1:
            raise ProtocolError(f"{key}: expected {_PAIR_COLUMNS} of equal length")
        _require_size(name, len(columns[0]), within)
        yield from (Pair(*row) for row in zip(*columns, strict=True))
        number += 1
    if not number:
        raise KeyError(f"{name}.0")
    if number != sum(each == name for each, _ in _part_names(records)):
        raise ProtocolError(f"field {name!r}: expected parts without a gap, got others")


def _is_texts(column: Any) -> bool:
    return isinstance(column, list) and all(type(each) is str for each in column)


def _encode_arrays(name: str, arrays: Arrays) -> dict[str, ArrayRecord]:
    if not arrays:
        return {}
    return {name: ArrayRecord({key: Array(np.asarray(value)) for key, value in arrays.items()})}


def _decode_arrays(name: str, records: RecordDict) -> Arrays:
    if name not in records.array_records:
        return {}
    return {
        key: _decode_array(f"field {name!r}, {key!r}", array)
        for key, array in records.array_records[name].items()
    }


def _decode_array(where: str, array: Array) -> NDArray[Any]:
    """An array whose bytes are as many as its own head says: nothing is allocated for others."""
    if array.stype != _NUMPY:
        raise ProtocolError(f"{where}: expected numpy's format, got another one")
    content = io.BytesIO(array.data)
    try:
        version = np.lib.format.read_magic(content)
        read = {(1, 0): np.lib.format.read_array_header_1_0}.get(version)
        if read is None:
            raise ValueError
        shape, _, dtype = read(content)
    except ValueError as error:
        raise ProtocolError(f"{where}: expected numpy's format, got another one") from error
    if dtype.kind not in "fiu":
        raise ProtocolError(f"{where}: expected numbers, got {dtype}")
    if math.prod(shape) * dtype.itemsize != len(array.data) - content.tell():
        raise ProtocolError(f"{where}: expected as many bytes as its shape has, got others")
    return array.numpy()


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
def _ranges(kind: type[WireMessage]) -> dict[str, Range]:
    return {each.name: each.metadata["range"] for each in fields(kind)}


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
