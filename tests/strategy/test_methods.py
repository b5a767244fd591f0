"""Methods and ratios become arms; unknown names get the nearest known one."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from pathlib import Path

import pytest

from conf.compose import compose
from conf.errors import ConfigError
from protocol.wire import NUMBERS_ONLY, WIRE_TABLE, allowed
from strategy import recipes
from strategy.arms import check_methods, make_arms
from strategy.method import Method
from strategy.methods import METHODS, compared, register, studied

DEPLOYED = ("engine=deployment", "engine.superlink=127.0.0.1:9093", "data=x")


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


def test_every_method_has_a_row_that_allows_what_it_needs_and_no_more():
    assert list(METHODS) == list(WIRE_TABLE)
    assert {name: method.needs for name, method in METHODS.items()} == WIRE_TABLE


def test_a_method_that_is_registered_becomes_an_arm(registries):
    register(Method(name="mine", about="as direct_ft", adapts=True))
    assert make_arms(["mine"], [0.5, 1.0])[0].adapter == "mine"
    assert WIRE_TABLE["mine"] == NUMBERS_ONLY == allowed(down="M_base")


@pytest.mark.parametrize(
    ("method", "wire", "message"),
    [
        ({"name": "cdcda"}, NUMBERS_ONLY, "method 'cdcda' exists already"),
        ({"name": "my@ft"}, NUMBERS_ONLY, "expected letters, digits and _"),
        ({"variant_of": "cdca"}, NUMBERS_ONLY, r"variant_of: unknown 'cdca'. Did you mean 'cdcda'"),
        ({"adapts": True, "added": "kept"}, NUMBERS_ONLY, r"sends shared pairs up.*up=\"\.\.\.\""),
        ({"added": "kept"}, allowed(up="shared pairs"), "sends M_base, kept pairs down"),
        ({"recipe": recipes.averaged}, NUMBERS_ONLY, "sends LoRA weights up"),
        ({"tuned": False}, NUMBERS_ONLY, "sends device model down"),
    ],
)
def test_a_method_that_cannot_be_is_refused_and_leaves_nothing(registries, method, wire, message):
    before = dict(METHODS)
    with pytest.raises(ConfigError, match=message):
        register(Method(**{"name": "mine", "about": "", **method}), wire)
    assert before == METHODS


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["methods=[cdcda_dp]", "filters=adversarial"],
            "filters.adversarial and the method cdcda_dp",
        ),
        (["methods=[rkd_ft]", "privacy.redact=[input]"], "privacy.redact and the method rkd_ft"),
        (["methods=[cdcda,nothing]"], "unknown 'nothing'.*plugins="),
        (
            ["methods=[dac24]", "task=lamp_2", "stream.synth_response=generate"],
            "stream.synth_response must be keep for lamp_2",
        ),
        (["methods=[unified]", *DEPLOYED], "unified reads every user's history"),
    ],
)
def test_methods_that_other_settings_exclude_are_refused(words, message):
    with pytest.raises(ConfigError, match=message):
        check_methods(compose(words))


def test_kept_pairs_of_others_stay_in_simulations(registries):
    crossing = replace(METHODS["cdcda"], name="crossing", hand_out=lambda kept, seed: kept)
    register(crossing, WIRE_TABLE["cdcda"])
    check_methods(compose(["methods=[crossing]"]))
    with pytest.raises(ConfigError, match="from one user's records to another"):
        check_methods(compose(["methods=[crossing]", *DEPLOYED]))


def test_others_are_compared_with_direct_ft_first():
    assert compared()[:2] == ("direct_ft", "device")
    assert studied() == "cdcda"
    assert METHODS["cdcda_rag"].without_sharing == "direct_ft_rag"


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_method_is_what_its_recipe_says(method):
    recipe = method.usual_recipe
    assert method.distils == bool(recipe.distillation)
    assert method.depends_on_ratio == bool(method.without_sharing) or method.private
    assert re.fullmatch(r"#[0-9A-F]{6}|", method.colour)
    assert max(map(len, method.heading.split("\n"))) <= 18


ROOT = Path(__file__).resolve().parents[2]
CODE = ("clients", "conf", "lamp", "models", "protocol", "sim", "storage", "strategy")
TOLD = (
    "strategy/methods.py",
    "conf/schema/run.py",  # the default of `methods`
    "sim/report/paper_values.py",  # rows of the tables that the papers print
    "sim/report/dac24_values.py",
)
WORDS = {"cloud", "device", "dac24"}  # these name models, a setting and a layout as well


def test_no_other_code_names_a_method():
    found = {
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for folder in CODE
        for path in (ROOT / folder).rglob("*.py")
        if str(path.relative_to(ROOT)) not in TOLD
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value in METHODS.keys() - WORDS
    }
    assert not found
