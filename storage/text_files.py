"""One reader for every text file that comes from outside: JSON, JSON lines, CSV, plain text.

Text is UTF-8, with or without a byte order mark, or UTF-16 or UTF-32 where the mark declares it. Of
JSON, NaN is read as null, which pandas writes for it, and half of a character as U+FFFD; of CSV,
commas, semicolons and tabs are known by the header. Whatever cannot be read is a
:class:`DataError` that names file, line and byte or column; it quotes no text of the file but
separators and names of columns.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conf.errors import DataError

# UTF-32 first: its little-endian mark begins with that of UTF-16
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SEPARATORS = {",": "a comma", ";": "a semicolon", "\t": "a tab"}
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # half of a character, or one of two halves
_PARTS = ("train", "dev", "test")  # folders that do not tell what a file is about
_BROKEN = "the file is broken or incomplete, fetch or write it again"
_CONVERT = "save it as UTF-8, or with a byte order mark"


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of a CSV file.

    Attributes:
        separator: What separates the columns.
        columns: Names of the columns as the file has them, without blanks around.
        rows: (line in the file, {name of the column: value}); blank rows are left out.
    """

    separator: str
    columns: tuple[str, ...]
    rows: tuple[tuple[int, Mapping[str, str]], ...]


def display_name(path: Path) -> str:
    """Name ``path`` in a message: its last folder and its name, never a whole path.

    Below a folder that is named by a part alone ("dev"), the folders above it are named too.
    """
    names = [path.name]
    for parent in path.parents:
        if not parent.name:
            break
        names.insert(0, parent.name)
        if parent.name not in (*_PARTS, "new"):
            break
    return "/".join(names)


def read_text(path: Path, missing: str = "check the path") -> str:
    """Read a text file.

    Args:
        path: The file.
        missing: What to do where there is none, for the error.

    Raises:
        DataError: If the file is missing, cannot be read, or its bytes are no text.
    """
    where = display_name(path)
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{where}: expected a file, there is none; {missing}") from None
    except IsADirectoryError:
        raise DataError(f"{where}: expected a file, got a folder; {missing}") from None
    except OSError as error:
        raise DataError(
            f"{where}: cannot be read ({error.strerror}); check the file and its permissions"
        ) from error
    return decode(content, where)


def decode(content: bytes, where: str) -> str:
    """Return the text of ``content``, see the module.

    Raises:
        DataError: If a byte does not belong to the encoding, with its line and place.
    """
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    if encoding == "utf-8" and b"\0" in content[:4]:
        raise DataError(
            f"{where}, line 1, byte {content.index(0) + 1}: expected text in UTF-8, got a zero "
            f"byte, as UTF-16 without a byte order mark has; {_CONVERT}"
        )
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode(encoding, "ignore")
        place = len(content) - len(error.object) + error.start  # UTF-8's mark is not counted there
        raise DataError(
            f"{where}, line {before.count(chr(10)) + 1}, byte {place + 1}: expected "
            f"{_title(encoding)}, got 0x{content[place]:02x} ({error.reason}); {_CONVERT}"
        ) from None


def _title(encoding: str) -> str:
    return encoding.removesuffix("-sig").upper()


def read_json(path: Path, missing: str = "check the path", remedy: str = _BROKEN) -> Any:
    """Read a JSON file.

    Args:
        path: The file.
        missing: What to do where there is none, for the error.
        remedy: What to do where it is no JSON, for the error.

    Raises:
        DataError: As :func:`read_text`, or if the text is no JSON or gives a key twice.
    """
    return parse_json(read_text(path, missing), display_name(path), remedy=remedy)


def read_json_lines(path: Path, missing: str = "check the path") -> list[tuple[int, Any]]:
    """Read JSON lines as (line in the file, value); blank lines are left out.

    Raises:
        DataError: As :func:`read_json`.
    """
    return list(parse_json_lines(read_text(path, missing), display_name(path)))


def parse_json_lines(text: str, where: str, unique: bool = True) -> Iterator[tuple[int, Any]]:
    """Yield (line, value) of JSON lines; as :func:`read_json_lines`."""
    # not splitlines: JSON may hold U+2028 and its like as they are
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, parse_json(line, where, number, unique)


def parse_json(
    text: str, where: str, line: int = 1, unique: bool = True, remedy: str = _BROKEN
) -> Any:
    """Parse JSON.

    Args:
        text: The text.
        where: Name of the file, for the error.
        line: Line of the file in which ``text`` begins.
        unique: Refuse an object that has one key twice, of which other readers take the last; off
            it reads twice as fast.
        remedy: What to do, for the error.

    Raises:
        DataError: If it is no JSON, nested too deeply, or has a number of too many digits.
    """
    try:
        hook = _unique if unique else None
        value = json.loads(text, parse_constant=_constant, object_pairs_hook=hook)
        return _whole(value) if _SURROGATE.search(text) else value
    except json.JSONDecodeError as error:
        raise DataError(
            f"{where} line {line + error.lineno - 1} column {error.colno}: expected JSON, got: "
            f"{error.msg}; {remedy}"
        ) from None
    except _TwiceError as error:
        raise DataError(
            f"{where}: expected each key of an object once, got {shown(str(error))} twice; "
            "remove one of them"
        ) from None
    except RecursionError:
        raise DataError(f"{where}: expected JSON, got lists in lists too deep; {remedy}") from None
    except ValueError:  # int() takes no more digits than sys.get_int_max_str_digits()
        raise DataError(
            f"{where}: expected numbers of usual size, got one of thousands of digits; "
            "correct it, or write it as a string"
        ) from None


class _TwiceError(Exception):
    """An object has a key twice."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _TwiceError(next(key for key in keys if keys.count(key) > 1))
    return found


def _whole(value: Any) -> Any:
    """``value`` with U+FFFD for each lone surrogate, half of a character, in its texts."""
    if isinstance(value, str):
        if value.isascii():
            return value
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_whole(each) for each in value]
    if isinstance(value, dict):
        return {_whole(key): _whole(each) for key, each in value.items()}
    return value


def _constant(name: str) -> float | None:
    return None if name == "NaN" else float(name)


def read_table(
    path: Path,
    columns: Sequence[str] = (),
    missing: str = "check the path",
    strict: bool = True,
) -> Table:
    """Read a CSV file whose first line names the columns.

    The separator is the one by which the header holds ``columns``, or else the most frequent. The
    columns asked for may be written in any case; their values are found under the name asked for.

    Args:
        path: The file.
        columns: Columns that must be there.
        missing: What to do where there is no file, for the error.
        strict: Refuse stray quotes and rows of more columns; off, those columns are left out.

    Raises:
        DataError: As :func:`read_text`, or if a column is missing or a row has other columns.
    """
    where = display_name(path)
    text = read_text(path, missing)
    header = next((line for line in text.splitlines() if line.strip()), "")
    separator = _separator(header, columns)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=strict)
    lines = _lines(reader, where)
    _, names = next(lines, (1, []))
    names = _named(names, columns)
    if absent := [name for name in columns if name not in names]:
        got = shown(separator.join(names)) if names else "an empty file"
        raise DataError(
            f"{where}, line 1: expected the columns {', '.join(columns)}, got {got}, separated by "
            f"{_SEPARATORS[separator]}; '{absent[0]}' is missing, add it"
        )
    rows = tuple((number, _row(names, values, where, number, strict)) for number, values in lines)
    return Table(separator, tuple(names), rows)


def _separator(header: str, columns: Sequence[str]) -> str:
    def fit(separator: str) -> tuple[int, int]:
        found = {name.strip(' "').casefold() for name in header.split(separator)}
        return sum(name.casefold() in found for name in columns), header.count(separator)

    return max(_SEPARATORS, key=fit)


def _lines(reader: Any, where: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (last line of the row, values) of rows that are not blank."""
    while True:
        try:
            values = [value.strip() for value in next(reader)]
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(
                f"{where}, line {reader.line_num}: expected CSV, got a broken row ({error}); "
                "correct it"
            ) from None
        if any(values):
            yield reader.line_num, values


def _named(names: Sequence[str], columns: Sequence[str]) -> list[str]:
    """The names of the header, those asked for as they were asked for."""
    asked = {name.casefold(): name for name in columns}
    return [asked.get(name.casefold(), name) for name in names]


def _row(
    names: Sequence[str], values: Sequence[str], where: str, number: int, strict: bool
) -> dict[str, str]:
    if strict and len(values) > len(names):
        raise DataError(
            f"{where}, line {number}: expected {len(names)} columns as the header has, got "
            f"{len(values)}; put values that hold a separator in quotes"
        )
    missing = [""] * (len(names) - len(values))
    return dict(zip(names, [*values[: len(names)], *missing], strict=True))


def unique_rows(table: Table, column: str, where: str) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Yield the rows of ``table``, each with another value in ``column``.

    Raises:
        DataError: If a value stands there twice, with both lines.
    """
    first: dict[str, int] = {}
    for number, row in table.rows:
        if row[column] in first:
            raise DataError(
                f"{where}, line {number}: expected each {column} once, {shown(row[column])} stands "
                f"in line {first[row[column]]} too; remove one of them"
            )
        first[row[column]] = number
        yield number, row


LONGEST_SHOWN = 60


def shown(value: str) -> str:
    """Quote a short value in a message: on one line, control characters escaped, cut if long."""
    text = printable(value)
    return f"'{text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 1] + '…'}'"


def printable(text: str) -> str:
    """Return ``text`` on one line: what is not printable is escaped as Python escapes it."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def first_words(found: Iterable[str], most: int = 3, show: Callable[[str], str] = shown) -> str:
    """Name the first ``most`` of several, and how many more there are."""
    values = list(found)
    more = f" and {len(values) - most} more" if len(values) > most else ""
    return ", ".join(map(show, values[:most])) + more
