"""What a device adds by itself comes from what it would share, never from more."""

from __future__ import annotations

from pathlib import Path

import pytest

from clients import outbound
from clients.base import load
from clients.dac24 import self_synthesis
from clients.folder import Device, Policy
from clients.local_data import added_pairs, near_records, own_texts
from conf.compose import compose
from conf.errors import ProtocolError
from conf.schema import StreamConfig
from lamp.records import Pair, UserHistory
from lamp.tasks import TASKS
from models.generation import Generation
from protocol.recipe import PLAIN, Recipe, recipe_from_json
from protocol.settings import settings_of

PAIRS = tuple(Pair(str(n), f"a quiet film about a war number {n}", "classic") for n in range(10))
PUBLIC = (
    *(Pair(f"far{n}", "boats sail home", "comedy") for n in range(20)),
    *(Pair(f"p{n}-{m}", f"one film number {n} seen", "action") for n in range(10) for m in (0, 1)),
)
EDA = Recipe(local="eda", k=3, thesaurus="world", eda_rate=0.3)


def device(ratio: float, withdrawn: tuple[str, ...] = ()) -> Device:
    history = UserHistory("ana", (), PAIRS, ())
    return Device(Path("nowhere"), history, Policy(ratio, withdrawn), b"s" * 32)


def sources(pairs: tuple[Pair, ...]) -> set[str]:
    return {pair.id.partition("/")[0] for pair in pairs}


@pytest.mark.parametrize("recipe", [Recipe(local="copies", k=3), EDA])
def test_k_of_each_record_that_consent_covers(recipe):
    own = device(0.4, withdrawn=("1",))
    added = added_pairs(own, recipe, seed=1)
    covered = outbound.grant(own, [1.0]).pairs
    assert sources(added) == {pair.id for pair in covered}
    assert len(added) == 3 * len(covered)
    assert len({pair.id for pair in added}) == len(added)


def test_a_smaller_ratio_adds_less_and_a_larger_one_no_more_than_the_policy():
    def count(ratio: float) -> int:
        return len(added_pairs(device(0.4), Recipe(local="copies", ratio=ratio), seed=1))

    assert [count(ratio) for ratio in (0.0, 0.2, 0.4, 1.0)] == [0, 2, 4, 4]


def test_copies_are_the_records_and_eda_changes_the_input_alone():
    originals = {pair.id: pair for pair in PAIRS}
    for copy in added_pairs(device(1.0), Recipe(local="copies"), seed=1):
        source = originals[copy.id.partition("/")[0]]
        assert (copy.input, copy.response) == (source.input, source.response)
    varied = added_pairs(device(1.0), EDA, seed=1)
    assert {pair.response for pair in varied} == {"classic"}
    changed = [pair.input != originals[pair.id.partition("/")[0]].input for pair in varied]
    assert sum(changed) > 20


def test_eda_depends_on_the_seed_only():
    assert added_pairs(device(1.0), EDA, seed=1) == added_pairs(device(1.0), EDA, seed=1)
    assert added_pairs(device(1.0), EDA, seed=1) != added_pairs(device(1.0), EDA, seed=2)


def test_the_plain_recipe_adds_nothing():
    assert added_pairs(device(1.0), PLAIN, seed=1) == ()
    assert near_records(device(1.0), PLAIN, TASKS["lamp_2"], PUBLIC) == ()


def test_the_nearest_public_records_are_as_many_as_copies_would_be():
    own, task = device(0.4, withdrawn=("1",)), TASKS["lamp_2"]
    near = near_records(own, Recipe(local="neighbours", k=3), task, PUBLIC)
    assert len(near) == len(added_pairs(own, Recipe(local="copies", k=3), seed=1))
    covered = {pair.id for pair in outbound.grant(own, [1.0]).pairs}
    assert {f"p{number}-0" for number in covered} <= {pair.id for pair in near}
    assert len(set(near)) == len(near)
    assert not any(pair.id.startswith("far") for pair in near)
    assert near_records(device(0.0), Recipe(local="neighbours"), task, PUBLIC) == ()


def test_the_devices_own_model_writes_of_what_consent_covers(monkeypatch, qwen2_folder):
    settings = settings_of(compose(["task=lamp_2", "qlora.compute_dtype=float32"]))
    base = load(qwen2_folder, settings.qlora, 1)

    def reply(_model, _tokenizer, prompts, seeds, **_):
        return [Generation(f"[a calm film about a war number {n}]", 9, True) for n in seeds]

    monkeypatch.setattr(self_synthesis, "generate", reply)
    recipe = Recipe(local="own_model", writing=StreamConfig(sets=3))
    made = own_texts(device(0.4), base, recipe, 1, None)
    assert sources(made) == {pair.id for pair in outbound.grant(device(0.4), [1.0]).pairs}
    assert len({pair.input for pair in made}) == len(made) == 3 * 4
    assert {pair.response for pair in made} == {"classic"}
    assert made == own_texts(device(0.4), base, recipe, 1, None)
    assert made != own_texts(device(0.4), base, recipe, 2, None)
    assert own_texts(device(0.0), base, recipe, 1, None) == ()


@pytest.mark.parametrize("told", ['{"local":"own_model"}', '{"writing":{"sets":1}}'])
def test_writing_goes_with_the_own_model_alone(told):
    with pytest.raises(ProtocolError, match="expected writing with local=own_model"):
        recipe_from_json(told)
