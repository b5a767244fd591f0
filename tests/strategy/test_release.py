"""What the cloud loads is gone from memory when it is said to be released."""

from __future__ import annotations

import weakref
from dataclasses import replace

import pytest

from conf.compose import compose
from conf.schema import AugmenterTuningConfig, Config
from lamp.records import Pair, Query, UserHistory
from models import loading
from models.nli import NliScorer
from models.sentences import SentenceScorer
from protocol.settings import settings_of
from sim.run.cloud_workers import cloud_here, judge_here
from sim.run.server import public_tuning
from strategy import public
from strategy.augmenter_tuning import ensure_augmenter
from strategy.base_model import ensure_bases
from strategy.large_model import LargeModel
from strategy.progress import LoggedProgress
from strategy.public import PublicUsers
from strategy.teacher import teach
from tests.plugins.bert import write_folder
from tests.plugins.small_runs import words

PAIRS = tuple(Pair(f"p{n}", f"a film about {n}", f"title {n}") for n in range(3))
QUESTION = "Generate a headline for the following article: a text"
USER = UserHistory("ann", (), PAIRS, (Query("q", QUESTION, "a title"),))


@pytest.fixture
def loaded(monkeypatch) -> list[weakref.ref]:
    """Weak references to every network that is loaded in the test."""
    found: list[weakref.ref] = []

    def watched(load):
        def wrapper(*arguments, **options):
            model = load(*arguments, **options)
            found.append(weakref.ref(getattr(model, "_model", model)))
            return model

        return wrapper

    for name in ("load_causal", "load_device_base", "_load_nf4"):
        monkeypatch.setattr(loading, name, watched(getattr(loading, name)))
    for kind in (NliScorer, SentenceScorer):
        monkeypatch.setattr(kind, "load", watched(kind.load))
    return found


@pytest.fixture
def config(qwen2_folder, tmp_path) -> Config:
    return compose(words(qwen2_folder, tmp_path))


@pytest.fixture
def users(tmp_path) -> PublicUsers:
    return public.write(tmp_path / "public", [USER])


def alive(loaded: list[weakref.ref]) -> list[object]:
    assert loaded, "nothing was loaded: the test watches the wrong place"
    return [model for ref in loaded if (model := ref()) is not None]


@pytest.mark.parametrize("tuned", [True, False])
def test_the_large_model_is_gone_after_release_and_comes_back(config, users, loaded, tuned):
    large = LargeModel(config.model.cloud, public_tuning(config, users), LoggedProgress())
    used = large.adapter if tuned else large.model
    del used
    assert alive(loaded)
    large.release()
    assert not alive(loaded)
    assert large.model is not None
    assert alive(loaded)


def test_the_teacher_is_gone_while_its_logits_can_still_be_read(config, users, loaded, tmp_path):
    large = LargeModel(config.model.cloud, public_tuning(config, users), LoggedProgress())
    taught = teach({"ann": PAIRS}, settings_of(config), large, LoggedProgress(), tmp_path)
    large.release()
    assert not alive(loaded)
    assert list(taught["ann"]) == [pair.id for pair in PAIRS]


def test_writer_and_judge_are_gone_when_the_augmentation_ends(config, loaded, tmp_path):
    judge = str(write_folder(tmp_path / "nli", {0: "contradiction", 1: "entailment", 2: "neutral"}))
    nli = replace(config.model.nli, path=judge)
    config = replace(config, model=replace(config.model, nli=nli))
    cloud = cloud_here(replace(config, filters=replace(config.filters, judge="nli")))
    cloud.writer.write(["a prompt"], [0], lambda _: None)
    cloud.judge.both_ways([("a film", "the film")])
    assert len(alive(loaded)) == 2
    cloud.end()
    assert not alive(loaded)


def test_the_sentence_encoder_is_gone_after_release(config, loaded, tmp_path):
    encoder = str(write_folder(tmp_path / "nli", {0: "a", 1: "b", 2: "c"}))
    nli = replace(config.model.nli, path=encoder)
    judge = judge_here(replace(config, model=replace(config.model, nli=nli)))
    judge.both_ways([("a film", "the film")])
    assert alive(loaded)
    judge.release()
    assert not alive(loaded)


def test_what_is_tuned_at_the_start_leaves_nothing_behind(config, users, loaded):
    tuning, progress = public_tuning(config, users), LoggedProgress()
    ensure_bases({True, False}, config.model.device, tuning, progress)
    learns = AugmenterTuningConfig(records=2, batch_size=2, learning_rate=1e-2)
    augmenter = replace(config.augmenter, tuning=learns)
    ensure_augmenter(augmenter, config.model.cloud, tuning, progress)
    assert len(loaded) >= 4
    assert not alive(loaded)
