"""The adapter that teaches the cloud model to write similar pairs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from conf.compose import compose
from conf.errors import DataError
from conf.schema import AugmenterTuningConfig
from lamp import world
from lamp.records import Pair, UserHistory
from models import loading
from sim.run.cloud_workers import cloud_here
from sim.run.server import public_tuning
from strategy import public
from strategy.augmenter_tuning import ensure_augmenter, tuning_pairs
from strategy.progress import LoggedProgress
from tests.plugins.small_runs import words

TUNING = AugmenterTuningConfig(records=4, batch_size=2, learning_rate=1e-2)
USERS = [
    UserHistory(
        name,
        profile=(),
        pairs=tuple(Pair(f"{name}{i}", text, "title") for i, text in enumerate(texts)),
        queries=(),
    )
    for name, texts in {
        "ann": ["red fish blue fish", "red fish blue dog", "green cat"],
        "bob": ["a council votes", "the council votes again"],
        "eve": ["alone"],
    }.items()
]


def test_outside_the_world_the_target_is_the_most_similar_record_of_the_same_user():
    pairs = tuning_pairs(USERS, TUNING, seed=0)
    assert len(pairs) == TUNING.records
    assert all(shown.id != target.id and shown.id[:3] == target.id[:3] for shown, target in pairs)


def test_in_the_world_the_target_is_a_paraphrase(monkeypatch):
    monkeypatch.setattr(world, "knows", lambda texts: True)
    monkeypatch.setattr(world, "paraphrase", lambda text, seed: f"{text} again")
    pairs = tuning_pairs(USERS, TUNING, seed=0)
    assert all(target.input == f"{shown.input} again" for shown, target in pairs)
    assert pairs == tuning_pairs(USERS, TUNING, seed=0)
    assert pairs != tuning_pairs(USERS, TUNING, seed=1)


def test_nothing_to_learn_from_is_refused_with_the_remedy():
    with pytest.raises(DataError, match=r"augmenter\.tuning=null"):
        tuning_pairs(USERS[2:], TUNING, seed=0)


def test_the_adapter_is_trained_once_and_changes_what_writes(qwen2_folder, tmp_path):
    config = compose(words(qwen2_folder, tmp_path, "+augmenter.tuning.records=4"))
    config = replace(config, augmenter=replace(config.augmenter, tuning=TUNING))
    users = public.write(tmp_path / "public", USERS)
    asked = (config.augmenter, config.model.cloud, public_tuning(config, users), LoggedProgress())
    folder = ensure_augmenter(*asked)
    written = (folder / "adapter_model.safetensors").stat().st_mtime_ns
    assert ensure_augmenter(*asked) == folder
    assert (folder / "adapter_model.safetensors").stat().st_mtime_ns == written

    plain = cloud_here(config).writer
    tuned = cloud_here(
        replace(config, augmenter=replace(config.augmenter, adapter=str(folder)))
    ).writer
    assert plain.identity != tuned.identity

    cloud = config.model.cloud
    before = loading.load_causal(cloud).state_dict()
    after = loading.load_causal(replace(cloud, adapter=str(folder))).state_dict()
    assert before.keys() == after.keys()
    assert any((before[name] != after[name]).any() for name in before)


def test_a_setting_that_nothing_would_read_is_refused():
    with pytest.raises(Exception, match=r"augmenter\.tuning has no effect"):
        compose(["model=miniature", "augmenter.tuning.records=4"])
