"""Methods and ratios become arms; unknown names get the nearest known one."""

from __future__ import annotations

import pytest

from conf.errors import ConfigError
from protocol.wire import WIRE_TABLE
from strategy.arms import make_arms
from strategy.methods import METHODS


def test_without_ratios_each_method_is_one_arm_that_asks_for_all():
    arms = make_arms(["device", "cdcda"], None)
    assert [(arm.name, arm.asked_ratio) for arm in arms] == [("device", 1.0), ("cdcda", 1.0)]


def test_only_methods_that_depend_on_the_ratio_get_one_arm_for_each():
    names = [arm.name for arm in make_arms(["direct_ft", "direct_ft_matched", "cdcda"], [0.1, 1.0])]
    assert names == [
        "direct_ft",
        "direct_ft_matched@0.1",
        "direct_ft_matched@1",
        "cdcda@0.1",
        "cdcda@1",
    ]


def test_an_unknown_method_names_the_nearest_one():
    with pytest.raises(ConfigError, match=r"unknown 'cdca'\. Did you mean 'cdcda'"):
        make_arms(["cdca"], None)


@pytest.mark.parametrize("methods", [[], ["cdcda", "cdcda"]])
def test_no_method_or_one_named_twice_is_refused(methods):
    with pytest.raises(ConfigError, match="methods"):
        make_arms(methods, None)


def test_every_method_has_a_row_in_the_wire_table():
    assert set(METHODS) == set(WIRE_TABLE)
