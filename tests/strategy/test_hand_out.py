"""The control hands every user another user's pairs, about as many, and changes nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf.compose import compose
from conf.errors import ConfigError
from lamp.records import Pair
from strategy.arms import Arm, check_methods
from strategy.filters import Candidate, Scores
from strategy.hand_out import CIRCLE, others_pairs
from strategy.methods import METHODS
from strategy.planning import ArmInputs, PlanSettings, plan_arm


def pairs(numbers: dict[str, int]) -> dict[str, tuple[Pair, ...]]:
    return {
        user: tuple(Pair(f"{user}/{n}", "x", "y") for n in range(k)) for user, k in numbers.items()
    }


def givers(numbers: dict[str, int], seed: int = 0) -> dict[str, str]:
    handed = others_pairs(pairs(numbers), seed)
    return {user: found[0].id.split("/")[0] if found else "" for user, found in handed.items()}


@given(st.lists(st.integers(0, 9), max_size=30), st.integers(0, 99))
def test_nobody_gets_own_pairs_and_all_who_have_some_get_some_once(counts, seed):
    numbers = {f"u{place}": count for place, count in enumerate(counts)}
    found = givers(numbers, seed)
    having = sorted(user for user in numbers if numbers[user])
    assert found.keys() == numbers.keys()
    assert all(found[user] == "" for user in numbers if not numbers[user])
    if len(having) > 1:
        assert sorted(filter(None, found.values())) == having
        assert all(user != giver for user, giver in found.items())


def test_the_only_one_with_pairs_has_nobody_to_swap_with():
    assert givers({"a": 3, "b": 0}) == {"a": "", "b": ""}
    assert givers({"a": 3}) == {"a": ""}
    assert givers({}) == {}


def test_who_swaps_depends_on_the_seed_and_doses_stay_alike():
    numbers = {f"u{place:02}": place + 1 for place in range(5 * CIRCLE)}
    found = [givers(numbers, seed) for seed in range(5)]
    assert found[0] == givers(numbers, 0)
    assert len({tuple(each.items()) for each in found}) == 5
    for each in found:
        assert all(abs(numbers[user] - numbers[giver]) < CIRCLE for user, giver in each.items())
    equal = {f"u{place:02}": 3 for place in range(3 * CIRCLE)}
    partners = {giver for seed in range(60) for user, giver in givers(equal, seed).items()
                if user == "u00"}  # fmt: skip
    assert len(partners) > 2 * CIRCLE  # of equals anybody may be the giver


def test_it_differs_from_cdcda_in_whose_pairs_are_trained_on_alone():
    cdcda, method = METHODS["cdcda"], METHODS["cdcda_shuffled"]
    same = ("oracle", "answers", "tuned", "adapts", "recipe", "added", "choice", "matches_steps")
    assert all(getattr(method, key) == getattr(cdcda, key) for key in same)
    assert method.crosses_users
    assert not cdcda.crosses_users


def test_a_deployment_refuses_it():
    check_methods(compose(["methods=[cdcda_shuffled]"]))
    deployed = ["engine=deployment", "engine.superlink=127.0.0.1:9093", "data=x"]
    with pytest.raises(ConfigError, match="pairs made from one user's records to another"):
        check_methods(compose(["methods=[cdcda_shuffled]", *deployed]))


def test_its_plan_is_cdcdas_with_the_pairs_of_another_user():
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
        plan_arm(Arm(METHODS[name]), "base", inputs, settings).rounds
        for name in ("cdcda", "cdcda_shuffled")
    )
    assert own.kept["ana"] == other.kept["ben"] != other.kept["ana"] == own.kept["ben"]
    assert replace(other, arm=own.arm, kept=own.kept) == own
    assert own.training_key("ana", "") != other.training_key("ana", "")
