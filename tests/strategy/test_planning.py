"""What parts the methods: which candidates are kept, what a device is told, how many rounds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from conf.compose import compose
from conf.errors import RunError
from conf.schema import ThresholdsConfig
from lamp.records import Pair, UserHistory
from protocol.recipe import PLAIN, Recipe, recipe_from_json, recipe_to_json
from storage import jsonlines
from strategy.arms import Arm, make_arms
from strategy.base_model import BaseModels
from strategy.filters import Candidate, Scores, select, select_random, select_readable
from strategy.methods import find_method
from strategy.planning import (
    ArmInputs,
    ArmPlan,
    PlanSettings,
    asked_ratios,
    largest_k,
    plan_arm,
    plan_arms,
    to_augment,
    to_teach,
    with_logits,
)
from strategy.public import pool
from strategy.recipes import RecipeInputs, thesaurus_of
from strategy.run_log import RunLog

CONFIG = compose(["augmenter.k=4", "baselines.fedavg_rounds=3", "evaluation.rag_items=2"])
GOOD = Scores(0.9, 0.9, 0.5, 1.0, 1.0)
ODD = Scores(0.1, 0.9, 0.5, 1.0, 1.0)
SHARED = tuple(Pair(f"r{number}", "x", "y") for number in range(2))


def candidate(source: str, index: int, scores: Scores | None) -> Candidate:
    if scores is None:
        return Candidate(source, None, "no_input", None)
    return Candidate(source, Pair(f"{source}/{index}", "x'", "y"), None, scores)


CANDIDATES = tuple(
    candidate(pair.id, index, scores)
    for pair in SHARED
    for index, scores in enumerate((GOOD, ODD, None, ODD))
)
MATERIAL = ArmInputs(
    shares={"ana": {0.5: SHARED[:1], 1.0: SHARED}},
    candidates={"ana": CANDIDATES},
    k=4,
)
LOGITS = {"ana": {pair.id: np.zeros((2, 3)) for pair in SHARED}}
SETTINGS = PlanSettings(
    filters=CONFIG.filters,
    recipes=RecipeInputs(baselines=CONFIG.baselines, k=4, thesaurus="world"),
    rag_items=2,
)


def arm(name: str, ratio: float | None = None) -> Arm:
    return Arm(find_method(name), ratio)


@pytest.fixture
def plan(tmp_path):
    """Plan an arm and note what its plan says of the pairs."""

    def planned(name: str, ratio: float | None = None) -> tuple[ArmPlan, ...]:
        made = plan_arm(arm(name, ratio), "base", MATERIAL, SETTINGS)
        RunLog(tmp_path).planned([made])
        return made.rounds

    return planned


def ids(plans) -> list[str]:
    return [pair.id for pair in plans[0].kept["ana"]]


def test_without_selection_every_readable_sample_is_kept(plan, tmp_path):
    assert len(ids(plan("cdcda_unfiltered"))) == 6
    (row,) = jsonlines.read(tmp_path / "augmentation.jsonl")
    assert (row["generated"], row["kept"], row["rejected"]) == (8, 6, {"no_input": 2})


def test_random_selection_keeps_as_many_as_the_filters_and_none_unreadable(plan, tmp_path):
    drawn = ids(plan("cdcda_random"))
    assert len(drawn) == len(ids(plan("cdcda"))) == 2
    assert set(drawn) <= {each.pair.id for each in CANDIDATES if each.pair}
    assert ids(plan("cdcda_random")) == drawn
    first = next(jsonlines.read(tmp_path / "augmentation.jsonl"))
    assert first["rejected"] == {"no_input": 2, "not_drawn": 4}


def test_another_seed_draws_others():
    drawn = {
        tuple(pair.id for pair in select_random(CANDIDATES, CONFIG.filters, seed).kept)
        for seed in range(20)
    }
    assert len(drawn) > 3
    assert len(select(CANDIDATES, CONFIG.filters).kept) == 2
    assert select_readable(()).generated == 0


def test_a_smaller_ratio_plans_with_the_prefix(plan):
    assert ids(plan("cdcda", 0.5)) == ["r0/0"]
    (rkd,) = plan("rkd_ft", 0.5)
    assert list(with_logits(rkd, LOGITS).logits["ana"]) == ["r0"]
    assert rkd.recipe.distillation == 1.0


def test_a_federated_arm_takes_its_rounds_and_answers_after_the_last(plan):
    rounds = plan("fedavg")
    assert [each.recipe.round for each in rounds] == [0, 1, 2]
    assert [each.answers for each in rounds] == [False, False, True]
    assert all(each.recipe.federated and each.recipe.epochs == 1 for each in rounds)


def test_rag_takes_the_adapter_of_the_arm_at_the_same_ratio(plan):
    (with_rag,), (without,) = plan("cdcda_rag", 0.5), plan("cdcda", 0.5)
    assert with_rag.training == without.training == ("cdcda@0.5", 0)
    assert (with_rag.retrieved, without.retrieved) == (2, 0)
    assert plan("device_rag")[0].arm.adapter == ""


def test_only_methods_that_ask_for_it_get_a_recipe():
    assert arm("cdcda").recipe(SETTINGS.recipes) is PLAIN
    assert arm("copies_ft", 0.3).recipe(SETTINGS.recipes) == Recipe(local="copies", ratio=0.3, k=4)
    eda = arm("eda_ft").recipe(SETTINGS.recipes)
    assert (eda.local, eda.ratio, eda.thesaurus) == ("eda", 1.0, "world")


def test_only_arms_that_read_public_records_get_them_and_are_trained_again_for_others():
    pools = [pool([UserHistory("u", (), SHARED[:1], ())], 9, seed) for seed in (0, 1)]
    pools.append(pool([UserHistory("u", (), (Pair("r0", "other", "y"),), ())], 9, 0))
    keys = set()
    for each in pools:
        (near,) = plan_arm(arm("neighbours_ft"), "base", ArmInputs(pool=each), SETTINGS).rounds
        (plain,) = plan_arm(arm("copies_ft"), "base", ArmInputs(pool=each), SETTINGS).rounds
        assert (near.pool, plain.pool.records) == (each, ())
        assert near.recipe == Recipe(local="neighbours", k=4)
        keys.add(near.training_key("ana", "s"))
    assert len(keys) == 2  # the first two have the same records


def test_a_pool_has_every_text_once_and_no_ids_of_users():
    users = [UserHistory(name, (), tuple(SHARED), ()) for name in ("u", "v")]
    drawn = pool(users, 9, 0)
    assert [pair.id for pair in drawn.records] == ["public-0"]
    many = UserHistory("w", (), tuple(Pair(f"w{n}", f"x{n}", "y") for n in range(50)), ())
    first, again, other = (pool([many], 5, seed) for seed in (0, 0, 1))
    assert len(first.records) == 5
    assert first == again != other


def test_real_text_takes_wordnet_unless_told_otherwise():
    real = replace(CONFIG, data="somewhere")
    assert thesaurus_of(real.baselines, real.data) == "wordnet"
    told = replace(real, baselines=replace(real.baselines, thesaurus="world"))
    assert thesaurus_of(told.baselines, told.data) == "world"


def test_a_recipe_comes_back_as_it_went_and_the_plain_one_is_empty():
    recipe = arm("eda_ft", 0.5).recipe(SETTINGS.recipes)
    assert recipe_from_json(recipe_to_json(recipe)) == recipe
    assert recipe_to_json(PLAIN) == "{}"


def test_a_smaller_k_is_the_first_samples_of_every_record():
    unfiltered = find_method("cdcda_unfiltered")
    kept = {
        k: plan_arm(Arm(unfiltered, None, k), "base", MATERIAL, SETTINGS).rounds[0].kept
        for k in (1, 2, 4)
    }
    names = {k: [pair.id for pair in found["ana"]] for k, found in kept.items()}
    assert names[1] == ["r0/0", "r1/0"]
    assert names[2] == ["r0/0", "r0/1", "r1/0", "r1/1"]
    assert len(names[4]) == 6


def test_an_arm_may_have_thresholds_of_its_own():
    loose = ThresholdsConfig(eps_scf=0.05)
    arms = make_arms(["direct_ft", "cdcda", "cdcda_unfiltered"], None, None, [loose])
    assert [each.name for each in arms] == ["direct_ft", "cdcda+eps_scf0.05", "cdcda_unfiltered"]
    (planned,) = plan_arm(arms[1], "base", MATERIAL, SETTINGS).rounds
    assert len(planned.kept["ana"]) == 6  # the odd ones pass too


def test_the_largest_k_of_any_arm_is_written():
    arms = make_arms(["direct_ft", "cdcda"], None, [2, 7])
    assert largest_k(arms, 4) == 7
    assert largest_k(make_arms(["direct_ft"], None), 4) == 0


def test_who_trained_without_the_teacher_is_not_taken_for_taught(plan):
    (before,) = plan("rkd_ft", 0.5)
    lost = replace(MATERIAL, shares={})  # ana's share did not come in
    (alone,) = plan_arm(arm("rkd_ft", 0.5), "base", lost, SETTINGS).rounds
    assert before.training_key("ana", "s") != alone.training_key("ana", "s")
    taught = with_logits(before, LOGITS)
    assert before.training_key("ana", "s") == taught.training_key("ana", "s")


def test_the_teacher_is_asked_once_for_the_largest_share_of_who_is_not_trained():
    arms = make_arms(["direct_ft", "rkd_ft"], [0.5, 1.0])
    shares = {**MATERIAL.shares, "ben": {0.5: (), 1.0: ()}}
    plans = [plan_arm(each, "base", ArmInputs(shares), SETTINGS).rounds[0] for each in arms]
    assert to_teach(plans, shares, lambda plan, user: False) == {"ana": SHARED, "ben": ()}
    half = [plan for plan in plans if plan.arm.asked_ratio == 0.5]
    trained = to_teach(plans, shares, lambda plan, user: user == "ben" or plan in half)
    assert trained == {"ana": SHARED}
    assert to_teach(plans, shares, lambda plan, user: True) == {}
    assert with_logits(plans[0], LOGITS) is plans[0]


def test_what_is_asked_for_and_augmented_is_the_largest_that_any_arm_needs():
    arms = make_arms(["direct_ft", "cdcda", "rkd_ft"], [0.5, 1.0])
    assert asked_ratios(arms) == (0.5, 1.0)
    assert to_augment(arms, MATERIAL.shares) == {"ana": SHARED}
    assert to_augment(arms[:2], MATERIAL.shares) == {"ana": SHARED[:1]}
    assert to_augment(make_arms(["rkd_ft"], [1.0]), MATERIAL.shares) == {}


def test_a_base_model_that_was_not_made_is_named():
    with pytest.raises(RunError, match="untuned base model was not made"):
        plan_arms([arm("device_zero_shot")], BaseModels(), MATERIAL, SETTINGS)
