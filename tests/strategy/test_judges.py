from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from conf.compose import compose
from conf.schema import Config
from sim.run.cloud_workers import judge_here
from strategy.judges import CloudNliScorer, EmbeddingScorer
from tests.plugins.bert import write_folder

LABELS = {0: "contradiction", 1: "entailment", 2: "neutral"}
PAIRS = [("the film is fine", "a film"), ("film", "film"), ("the council votes", "the bridge")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("nli"), LABELS)


def configured(folder: Path, judge: str) -> Config:
    return compose(["model=qwen2.5", f"model.nli.path={folder}", f"filters.judge={judge}"])


def test_the_configured_judge_is_taken(folder: Path):
    assert type(judge_here(configured(folder, "nli"))) is CloudNliScorer
    assert type(judge_here(configured(folder, "embedding"))) is EmbeddingScorer


def test_each_judge_has_an_identity_of_its_own(folder: Path):
    """Their scores lie in one cache; a cosine must never pass for a probability."""
    nli, embedding = (judge_here(configured(folder, name)) for name in ("nli", "embedding"))
    assert nli.identity != embedding.identity
    assert embedding.identity == judge_here(configured(folder, "embedding")).identity


@pytest.mark.parametrize("name", ["nli", "embedding"])
def test_scoring_batch_by_batch_gives_what_the_judge_gives_at_once(folder: Path, name: str):
    config = configured(folder, name)
    nli = replace(config.model.nli, batch_size=2)
    judge = type(judge_here(config))(nli, "cpu")
    questions = judge.questions(PAIRS)
    scores = [0.0] * len(questions)
    for batch in judge.batches(questions):
        found = judge.score([questions[index] for index in batch])
        for index, score in zip(batch, found, strict=True):
            scores[index] = score
    expected = [pytest.approx(pair, abs=1e-5) for pair in judge.both_ways(PAIRS)]
    assert judge.answers(scores) == expected


def test_a_cosine_is_the_same_in_both_directions_and_asked_once(folder: Path):
    judge = judge_here(configured(folder, "embedding"))
    assert len(judge.questions(PAIRS)) == len(PAIRS)
    assert all(there == back for there, back in judge.both_ways(PAIRS))


@pytest.mark.parametrize("name", ["nli", "embedding"])
def test_a_judge_travels_without_its_network(folder: Path, name: str):
    judge = judge_here(configured(folder, name))
    before = judge.both_ways(PAIRS)
    assert len(pickle.dumps(judge)) < 2000
    assert pickle.loads(pickle.dumps(judge)).both_ways(PAIRS) == before


@pytest.mark.parametrize("name", ["nli", "embedding"])
def test_pairs_that_do_not_fit_are_counted_once_each(folder: Path, name: str):
    judge = judge_here(configured(folder, name))
    long = "film " * 900
    assert judge.cut(PAIRS) == 0
    assert judge.cut([*PAIRS, (long, "bridge"), ("bridge", long)]) == 2
    assert judge.cut([]) == 0
