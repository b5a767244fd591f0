"""Dates of records: ISO dates, years and times as numbers, and which of two is the earlier.

Read are a year of four digits, YYYY-MM, YYYY-MM-DD (months and days also of one digit, as in LaMP)
and YYYYMMDD, each day with a time and a zone if there is one. Two-digit years, seconds since 1970
and orders of day and month that differ by country are refused, never guessed.

Order: a time with a zone is converted to UTC, one without counts as UTC. A date of lower precision
sorts before the more exact ones within it, but nothing tells which came first: :func:`precedes` is
true for neither.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache

from conf.errors import DataError
from lamp.records import ProfileItem
from storage.text_files import shown

Key = tuple[int, ...]  # year, month, day, hour, minute, second, microsecond: as far as is known

FORMS = "YYYY, YYYY-MM-DD or YYYY-MM-DDThh:mm:ss"
_DATE = re.compile(
    r"""(?P<year>[1-9]\d{3})
    (?: (?P<month>\d\d)(?P<day>\d\d) | -(?P<month1>\d{1,2}) (?:-(?P<day1>\d{1,2}))? )?
    (?: [Tt\ ] (?P<hour>\d{1,2}) (?: :(?P<minute>\d\d) (?: :(?P<second>\d\d)
        (?: [.,](?P<fraction>\d+) )? )? )?
        \s* (?P<zone> [Zz] | UTC | GMT | [+-]\d\d (?: :?\d\d )? )? )?""",
    re.VERBOSE | re.ASCII,
)
_START = (1, 1, 1, 0, 0, 0, 0)
_LONGEST_OFFSET = timedelta(hours=14)


@lru_cache(maxsize=1 << 16)
def date_key(date: str) -> Key | None:
    """Read a date as numbers in descending order of weight, see the module.

    Returns:
        One to seven numbers, year first; None when the date cannot be read.
    """
    match = _DATE.fullmatch(date.strip())
    if match is None:
        return None
    part = match.groupdict()
    texts = (
        part["year"],
        part["month"] or part["month1"],
        part["day"] or part["day1"],
        *(part[name] for name in ("hour", "minute", "second")),
        part["fraction"] and f"{part['fraction']:0<6.6}",
    )
    numbers = [int(text) for text in texts if text is not None]
    if part["hour"] and len(numbers) < len(("year", "month", "day", "hour")):
        return None  # a time of a year or of a month
    try:
        return _checked(numbers, part["zone"])
    except (ValueError, OverflowError):
        return None


def _checked(numbers: list[int], zone: str | None) -> Key:
    """Return ``numbers`` in UTC.

    Raises:
        ValueError: If they are out of range.
        OverflowError: If in UTC they are.
    """
    year, month, day, hour, minute, second, micro = [*numbers, *_START[len(numbers) :]]
    moment = datetime(year, month, day, hour, minute, second, micro, _offset(zone))
    moment = moment.astimezone(UTC)
    return (*moment.timetuple()[:6], moment.microsecond)[: len(numbers)]


def _offset(zone: str | None) -> timezone:
    if zone is None or zone in ("Z", "z", "UTC", "GMT"):
        return UTC
    digits = zone[1:].replace(":", "").ljust(4, "0")
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    if offset > _LONGEST_OFFSET or int(digits[2:]) > 59:
        raise ValueError("no such zone")
    return timezone(-offset if zone[0] == "-" else offset)


def precedes(first: Key, second: Key) -> bool:
    """Whether ``first`` certainly comes before ``second``.

    False also where one is a part of the other, as a day of its year: nothing tells their order.
    """
    return first < second and second[: len(first)] != first


def date_of(item: ProfileItem, owner: str, purpose: str, remedy: str) -> Key:
    """Read the date of an item as :func:`date_key` does.

    Args:
        item: The item.
        owner: Whose it is, for the error.
        purpose: What the date is for, for the error.
        remedy: What else to do, for the error.

    Raises:
        DataError: If there is none, or it cannot be read.
    """
    key = None if item.date is None else date_key(item.date)
    if key is None:
        got = "there is none" if item.date is None else f"got {shown(item.date)}"
        raise DataError(
            f"{owner}, profile item {shown(item.id)}, field 'date': expected {FORMS} for "
            f"{purpose}, {got}; write dates so, or {remedy}"
        )
    return key
