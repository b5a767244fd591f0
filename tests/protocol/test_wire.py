"""A message is held against its method's row before it is sent."""

from __future__ import annotations

from dataclasses import replace

import pytest

from conf.errors import ProtocolError
from lamp.records import Pair
from protocol.messages import AdaptRequest, ShareReply
from protocol.wire import NUMBERS_ONLY, Allowed, allowed, check_allowed
from strategy.methods import METHODS

PLAIN = AdaptRequest(arm="a", base_id="b", settings="{}", seed=0, kept=(), extra_records=0)
WITH_PAIRS = replace(PLAIN, kept=(Pair("1", "x", "y"),))


def test_a_row_is_written_in_the_words_of_the_fields():
    row = allowed(up="shared pairs", down="kept pairs, M_base")
    assert row == Allowed(frozenset({"shared pairs"}), frozenset({"kept pairs", "M_base"}))
    assert allowed() == Allowed(frozenset(), frozenset())
    assert NUMBERS_ONLY.up == frozenset()


@pytest.mark.parametrize("method", ["direct_ft", "rkd_ft", "a method without a row"])
def test_kept_pairs_go_to_methods_that_may_have_them_alone(method):
    assert "direct_ft" in METHODS
    check_allowed("cdcda", "down", WITH_PAIRS)
    check_allowed(method, "down", PLAIN)
    with pytest.raises(ProtocolError, match=rf"{method}: .*would carry kept pairs down"):
        check_allowed(method, "down", WITH_PAIRS)


def test_shared_pairs_come_up_for_methods_that_ask_for_them_alone():
    reply = ShareReply(user_id="u", pairs=(Pair("1", "x", "y"),), counts=(1,))
    check_allowed("rkd_ft", "up", reply)
    with pytest.raises(ProtocolError, match=r"eda_ft: a query.share would carry shared pairs up"):
        check_allowed("eda_ft", "up", reply)
