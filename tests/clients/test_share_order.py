"""An order by date needs dates: what has none is refused, before a device is set up and on it."""

from __future__ import annotations

import pytest

from clients.folder import Device, Policy
from clients.share_order import check_dates, sharing_order
from conf.errors import DataError
from lamp.records import Pair, ProfileItem, UserHistory


def user(*dates: str | None) -> UserHistory:
    items = tuple(ProfileItem(f"p{place}", {}, date) for place, date in enumerate(dates))
    return UserHistory("ana", items, tuple(Pair(item.id, "x", "y") for item in items), ())


@pytest.mark.parametrize("select", ["recent", "oldest"])
@pytest.mark.parametrize(
    ("date", "got"), [(None, "there is none"), ("", "got ''"), ("last May", "got 'last May'")]
)
def test_an_order_by_date_needs_dates_that_can_be_read(tmp_path, select, date, got):
    history, message = user("2017-2-3", date), f"user 'ana', profile item 'p1', .*{got}; .*random"
    with pytest.raises(DataError, match=message):
        check_dates(history, select)
    with pytest.raises(DataError, match=message):
        sharing_order(Device(tmp_path, history, Policy(1.0, select=select), b"s" * 32))
    check_dates(user("2017-2-3"), select)
    check_dates(history, "random")


def test_the_same_day_in_another_form_is_the_same_day(tmp_path):
    history = user("20170203", "2017-2-3", "2017-02-03")
    drawn = {
        tuple(
            pair.id
            for pair in sharing_order(
                Device(tmp_path, history, Policy(1.0, select="oldest"), bytes([secret]) * 32)
            )
        )
        for secret in range(40)
    }
    assert len(drawn) == 6  # the secret alone orders them
