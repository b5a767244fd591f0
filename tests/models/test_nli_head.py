from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from conf.schema import NliHeadConfig, NliModelConfig
from models import nli_head
from models.nli import NliScorer
from storage import atomic
from tests.plugins.bert import WORDS, write_folder

HEAD = NliHeadConfig(epochs=8, learning_rate=3e-3, batch_size=16)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs whose label one word of the hypothesis gives away."""
    told = {"entailment": "fine", "contradiction": "not", "neutral": "council"}
    lines = [
        json.dumps({"premise": word, "hypothesis": f"{other} {cue}", "label": label})
        for word in WORDS
        for other in WORDS[:4]
        for label, cue in told.items()
    ]
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    path.write_text("\n".join(lines))
    return path


def quiet(*_: object) -> None:
    pass


def configured(encoder: Path) -> NliModelConfig:
    return NliModelConfig(path=str(encoder), head=HEAD, max_length=32)


@pytest.fixture(scope="module")
def judge(encoder: Path, file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nli_head.ensure(configured(encoder), file, tmp_path_factory.mktemp("cache"), quiet)


def test_a_head_learns_what_its_pairs_tell_and_says_how_well(judge: Path):
    facts = json.loads((judge / atomic.MARKER).read_text())
    assert facts["accuracy"] > 0.9
    assert facts["pairs"] == 11  # every tenth of 108
    scorer = NliScorer.load(NliModelConfig(path=str(judge), max_length=32))
    sure, unsure = scorer.entailment([("film", "the fine"), ("film", "the not")])
    assert sure > 0.75 > 0.25 > unsure


def test_the_same_encoder_pairs_and_settings_are_trained_once(
    encoder: Path, file: Path, judge: Path
):
    cache = judge.parent.parent
    steps: list[object] = []
    assert nli_head.ensure(configured(encoder), file, cache, lambda *s: steps.append(s)) == judge
    assert not steps
    longer = replace(configured(encoder), head=replace(HEAD, epochs=1))
    assert nli_head.ensure(longer, file, cache, quiet) != judge


def test_training_twice_gives_the_same_weights(
    encoder: Path, file: Path, judge: Path, tmp_path: Path
):
    again = nli_head.ensure(configured(encoder), file, tmp_path, quiet)
    weights = "model.safetensors"
    assert (again / weights).read_bytes() == (judge / weights).read_bytes()


def test_progress_reaches_its_end(encoder: Path, file: Path, tmp_path: Path):
    seen: list[tuple[int, int]] = []
    quick = replace(configured(encoder), head=replace(HEAD, epochs=1))
    nli_head.ensure(quick, file, tmp_path, lambda _, done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] == len(seen)
