from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf.errors import DataError
from lamp.dates import date_key, date_of, precedes
from lamp.records import ProfileItem


@pytest.mark.parametrize(
    ("date", "expected"),
    [
        ("2011", (2011,)),
        ("2011-05", (2011, 5)),
        (" 2011-5-9 ", (2011, 5, 9)),
        ("20110509", (2011, 5, 9)),
        ("20110509T13:30", (2011, 5, 9, 13, 30)),
        ("2011-05-09 13:30:59", (2011, 5, 9, 13, 30, 59)),
        ("2011-05-09T13:30:59.123Z", (2011, 5, 9, 13, 30, 59, 123000)),
        ("2011-05-09T13:30:59.1234567", (2011, 5, 9, 13, 30, 59, 123456)),
        ("2011-05-09T01:30+02:00", (2011, 5, 8, 23, 30)),
        ("2011-05-09T23:30:00-0800", (2011, 5, 10, 7, 30, 0)),
        ("2011-05-09 23:30 UTC", (2011, 5, 9, 23, 30)),
        ("2000-02-29", (2000, 2, 29)),
    ],
)
def test_dates_are_read_as_numbers_in_utc(date, expected):
    assert date_key(date) == expected


@pytest.mark.parametrize(
    "date",
    [
        "",
        "2011-",
        "May 9, 2011",
        "Mon Apr 06 22:19:45 PDT 2009",
        "04/06/2009",
        "06.04.2009",
        "25-01-01",
        "0999-01-01",
        "1304947859",
        "1304947859000",
        "201105",
        "20111301",
        "2011-13-01",
        "2011-02-29",
        "2011-00-01",
        "2011-05-09T24:00",
        "2011-05-09T12:60",
        "2011-05-09T12:30:61",
        "2011-05-09T12:30+15:00",
        "2011-05-09T12:30+01:75",
        "2011T12:30",
        "2011-05T12",
        "9999-12-31T23:00-08:00",
        "２０１１-05-09",
        "2011-05-09\n2012-01-01",
    ],
)
def test_what_is_no_date_is_not_guessed(date):
    assert date_key(date) is None


def test_an_unreadable_date_is_refused_with_record_value_and_form():
    with pytest.raises(DataError) as error:
        date_of(ProfileItem("i", {}, "04/06/2009"), "user 'u'", "split=time", "set split=user")
    assert str(error.value) == (
        "user 'u', profile item 'i', field 'date': expected YYYY, YYYY-MM-DD or "
        "YYYY-MM-DDThh:mm:ss for split=time, got '04/06/2009'; write dates so, or set split=user"
    )
    with pytest.raises(DataError, match="there is none"):
        date_of(ProfileItem("i", {}, None), "user 'u'", "split=time", "set split=user")


@pytest.mark.parametrize(
    ("first", "second", "certain"),
    [
        ("2011", "2012-01-01", True),
        ("2011-05-09", "2011-05-10", True),
        ("2011", "2011-05-09", False),
        ("2011-05-09", "2011", False),
        ("2011-05-09", "2011-05-09", False),
        ("2011-05-09", "2011-05-09T12:00", False),
        ("2011-05-09T23:30-08:00", "2011-05-10T07:00", False),
        ("2011-05-09T23:30-08:00", "2011-05-10T08:00", True),
    ],
)
def test_only_what_can_be_compared_is_ordered(first, second, certain):
    assert precedes(date_key(first), date_key(second)) == certain


@given(text=st.text() | st.from_regex(r"[0-9TZ:+. /-]{4,25}", fullmatch=True))
def test_any_text_is_a_date_of_this_era_or_none(text):
    key = date_key(text)
    assert key is None or (1000 <= key[0] <= 9999 and 1 <= len(key) <= 7)
