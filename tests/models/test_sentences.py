from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import BertModel, PreTrainedTokenizerFast

from conf.errors import ModelError
from conf.schema import NliModelConfig
from models.sentences import SentenceScorer
from tests.plugins.bert import write_folder

TEXTS = ("the film is fine", "a bridge", "the council votes not the bridge", "film")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("encoder"))


def scorer(folder: Path, max_length: int = 64, batch_size: int = 3) -> SentenceScorer:
    config = NliModelConfig(path=str(folder), max_length=max_length, batch_size=batch_size)
    return SentenceScorer.load(config)


def test_a_vector_is_the_normalised_mean_of_the_last_hidden_states(folder: Path):
    model = BertModel.from_pretrained(folder).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    vectors = scorer(folder).embed(TEXTS)
    for text, vector in zip(TEXTS, vectors, strict=True):
        with torch.inference_mode():
            states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        mean = states.mean(0)
        assert torch.allclose(vector, mean / mean.norm(), atol=1e-5)


def test_the_cosine_of_a_text_with_itself_is_one_and_the_order_does_not_matter(folder: Path):
    same, one, other = scorer(folder).cosines(
        [("film", "film"), ("the film is fine", "a bridge"), ("a bridge", "the film is fine")]
    )
    assert same == pytest.approx(1)
    assert one == other < 1


def test_the_batch_size_changes_nothing(folder: Path):
    pairs = list(zip(TEXTS, TEXTS[::-1], strict=True))
    one_by_one = scorer(folder, batch_size=1).cosines(pairs)
    assert scorer(folder, batch_size=64).cosines(pairs) == pytest.approx(one_by_one, abs=1e-5)


def test_a_text_that_stands_in_several_pairs_is_embedded_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    judge, seen = scorer(folder), []
    embed = judge.embed
    monkeypatch.setattr(judge, "embed", lambda texts: seen.extend(texts) or embed(texts))
    judge.cosines([("film", "a"), ("film", "the"), ("a", "film")])
    assert seen == ["film", "a", "the"]


def test_no_score_leaves_zero_to_one_whatever_the_text(folder: Path):
    pairs = [("", ""), ("", "film"), (" ", "\n"), ("\ud800", "日本"), ("[SEP]", "film"), ("a", "a")]
    scores = scorer(folder).cosines(pairs)
    assert all(0 <= score <= 1 for score in scores)
    assert scores[:3] == [1.0, 0.0, 1.0]
    assert scorer(folder).cosines([]) == []


def test_what_is_too_long_is_cut_and_counted(folder: Path):
    judge = scorer(folder, max_length=6)
    judge.cosines([("film", "the film is fine not fine not fine"), ("a", "the")])
    assert judge.truncated == 1


def test_a_folder_without_an_encoder_is_refused(tmp_path: Path):
    with pytest.raises(ModelError, match=r"no config\.json in it"):
        scorer(tmp_path)
