"""The control hands every user another user's pairs, about as many, and changes nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from conf import plugins
from conf.compose import compose
from conf.errors import ConfigError
from lamp.records import Pair
from strategy.arms import Arm, check_methods
from strategy.filters import Candidate, Scores
from strategy.methods import METHODS
from strategy.planning import ArmInputs, PlanSettings, plan_arm

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "cdcda_shuffled.py"


@pytest.fixture
def method(registries):
    plugins.load([str(EXAMPLE)])
    return METHODS["cdcda_shuffled"]


def pairs(**numbers: int) -> dict[str, tuple[Pair, ...]]:
    return {
        user: tuple(Pair(f"{user}{n}", "x", "y") for n in range(k)) for user, k in numbers.items()
    }


def givers(method, **numbers: int) -> dict[str, str]:
    handed = method.hand_out(pairs(**numbers))
    return {user: found[0].id[0] if found else "" for user, found in handed.items()}


def test_neighbours_by_number_swap_and_the_last_three_go_round(method):
    assert givers(method, a=9, b=2, c=8, d=3) == {"a": "c", "b": "d", "c": "a", "d": "b"}
    assert givers(method, a=1, b=2, c=3, d=4, e=5) == {
        "a": "b",
        "b": "a",
        "c": "e",
        "d": "c",
        "e": "d",
    }
    assert givers(method, a=1, b=2, c=3) == {"a": "c", "b": "a", "c": "b"}


def test_who_has_no_pairs_gets_none_and_nobody_gets_own_ones(method):
    assert givers(method, a=3, b=0, c=4) == {"a": "c", "b": "", "c": "a"}
    assert givers(method, a=3, b=0) == {"a": "", "b": ""}
    assert givers(method) == {}


def test_it_differs_from_cdcda_in_whose_pairs_are_trained_on_alone(method):
    cdcda = METHODS["cdcda"]
    same = ("oracle", "answers", "tuned", "adapts", "recipe", "added", "choice", "matches_steps")
    assert all(getattr(method, key) == getattr(cdcda, key) for key in same)
    assert method.crosses_users
    assert not cdcda.crosses_users


def test_a_deployment_refuses_it(method):
    named = [f"plugins=['{EXAMPLE}']", "methods=[cdcda_shuffled]"]
    check_methods(compose(named))
    deployed = ["engine=deployment", "engine.superlink=127.0.0.1:9093", "data=x"]
    with pytest.raises(ConfigError, match="pairs made from one user's records to another"):
        check_methods(compose([*named, *deployed]))


def test_its_plan_is_cdcdas_with_the_pairs_of_another_user(method):
    filters = compose([]).filters
    good = Scores(1.0, 1.0, 0.5, 1.0, 1.0)
    shares = {user: {1.0: (Pair(f"{user}0", "x", "y"),)} for user in ("ana", "ben")}
    candidates = {
        user: tuple(
            Candidate(f"{user}0", Pair(f"{user}0/{index}", f"{user} says", "y"), None, good)
            for index in range(2)
        )
        for user in shares
    }
    inputs, settings = ArmInputs(shares, candidates, k=2), PlanSettings(filters=filters)
    (own,), (other,) = (
        plan_arm(Arm(each), "base", inputs, settings).rounds for each in (METHODS["cdcda"], method)
    )
    assert own.kept["ana"] == other.kept["ben"] != other.kept["ana"] == own.kept["ben"]
    assert replace(other, arm=own.arm, kept=own.kept) == own
    assert own.training_key("ana", "") != other.training_key("ana", "")


def test_the_words_of_its_page_compose(registries):
    contrast = 'contrasts=["cdcda - cdcda_shuffled"]'
    words = [f"plugins=['{EXAMPLE}']", "methods=[direct_ft,cdcda,cdcda_shuffled]", contrast]
    check_methods(compose(words))
