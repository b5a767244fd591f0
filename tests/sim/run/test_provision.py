"""What is refused before any device is set up."""

from __future__ import annotations

import pytest

from conf.compose import compose
from conf.errors import DataError
from lamp.records import ProfileItem, UserHistory
from sim.run.provision import check_dates


def user(date: str | None) -> UserHistory:
    return UserHistory("ana", (ProfileItem("p1", {}, date),), (), ())


@pytest.mark.parametrize(("date", "got"), [(None, "none"), ("last May", "one that cannot be read")])
def test_an_order_by_date_needs_dates_that_can_be_read(date, got):
    privacy = compose(["privacy.select=recent"]).privacy
    with pytest.raises(
        DataError, match=f"user ana, record p1: .* a date in every record, got {got}"
    ):
        check_dates([user(date)], privacy)
    check_dates([user("2017-2-3")], privacy)
    check_dates([user(date)], compose(["privacy.select=random"]).privacy)
