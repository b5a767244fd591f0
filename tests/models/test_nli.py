from __future__ import annotations

import json
import logging

import pytest
import torch
from transformers import BertForSequenceClassification, PreTrainedTokenizerFast

from conf.errors import ModelError
from conf.schema import NliModelConfig
from models.nli import NliScorer, entailment_index
from tests.plugins.bert import write_folder

PAIRS = [
    ("the film is fine", "a film"),
    ("the council votes", "the council votes not the bridge"),
    ("a", "the bridge is fine not fine not fine not fine"),
    ("film", "film"),
]


WANLI = {0: "contradiction", 1: "entailment", 2: "neutral"}
MNLI = {0: "CONTRADICTION", 1: "NEUTRAL", 2: "ENTAILMENT"}


@pytest.fixture(scope="module")
def nli_folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("nli"), WANLI)


def scorer(folder, **settings) -> NliScorer:
    return NliScorer.load(NliModelConfig(path=str(folder), **settings))


def by_hand(folder, premise: str, hypothesis: str, column: int) -> float:
    model = BertForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    with torch.no_grad():
        logits = model(**tokenizer(premise, hypothesis, return_tensors="pt")).logits[0]
    return logits.softmax(-1)[column].item()


def test_both_ways_in_input_order(nli_folder):
    got = scorer(nli_folder, batch_size=3).both_ways(PAIRS)
    for (first, second), (forward, backward) in zip(PAIRS, got, strict=True):
        assert forward == pytest.approx(by_hand(nli_folder, first, second, 1), abs=1e-6)
        assert backward == pytest.approx(by_hand(nli_folder, second, first, 1), abs=1e-6)
    assert got[1][0] != pytest.approx(got[1][1], abs=1e-3)


def test_entailment_column_comes_from_the_checkpoint(tmp_path):
    folder = write_folder(tmp_path / "mnli", MNLI)
    (forward, _), *_ = scorer(folder).both_ways(PAIRS)
    assert forward == pytest.approx(by_hand(folder, *PAIRS[0], 2), abs=1e-6)


@pytest.mark.parametrize(
    ("labels", "index"),
    [(WANLI, 1), (MNLI, 2), ({0: "Entailment", 1: "not_entailment"}, 0)],
)
def test_entailment_index_ignores_case_and_order(labels, index):
    assert entailment_index(labels) == index


@pytest.mark.parametrize("labels", [{0: "LABEL_0", 1: "LABEL_1"}, {}, {0: "entails"}])
def test_without_an_entailment_label_the_labels_are_listed(labels):
    with pytest.raises(ModelError) as raised:
        entailment_index(labels)
    assert str(sorted(labels.values())) in str(raised.value)


def test_checkpoint_without_an_entailment_label_is_refused(tmp_path):
    folder = write_folder(tmp_path / "other", {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"})
    with pytest.raises(ModelError, match=r"got \['LABEL_0', 'LABEL_1', 'LABEL_2'\]"):
        scorer(folder)


def test_batch_size_does_not_matter(nli_folder):
    expected = scorer(nli_folder, batch_size=64).both_ways(PAIRS)
    got = scorer(nli_folder, batch_size=1).both_ways(PAIRS)
    assert torch.tensor(got).tolist() == [pytest.approx(pair, abs=1e-6) for pair in expected]


def test_what_is_too_long_is_cut_and_counted(nli_folder):
    cut = scorer(nli_folder, max_length=8)
    got = cut.both_ways([*PAIRS, ("film " * 500, "bridge")])
    assert len(got) == 5
    assert all(0 < probability < 1 for pair in got for probability in pair)
    # [CLS], two [SEP] and more than five words: pairs 0, 1, 2 and the long one, each both ways
    assert (cut.truncated, cut.scored) == (8, 10)
    whole = scorer(nli_folder, max_length=64)
    whole.both_ways(PAIRS)
    assert (whole.truncated, whole.scored) == (0, 8)


def test_typed_control_tokens_stay_text(nli_folder):
    score = scorer(nli_folder).both_ways([("film [SEP] bridge", "fine")])
    injected = by_hand(nli_folder, "film [SEP] bridge", "fine", 1)
    assert score[0][0] != pytest.approx(injected, abs=1e-4)


def test_lone_surrogates_and_empty_texts_are_scored(nli_folder):
    assert len(scorer(nli_folder).both_ways([("a\ud800b", ""), ("", "")])) == 2


def test_no_pairs_give_no_scores(nli_folder):
    assert scorer(nli_folder).both_ways([]) == []


def test_a_causal_checkpoint_is_no_classifier(qwen2_folder):
    with pytest.raises(ModelError, match="missing or of another shape"):
        scorer(qwen2_folder)


def test_missing_folder_is_an_error():
    with pytest.raises(ModelError, match="expected a folder in Hugging Face layout"):
        NliScorer.load(NliModelConfig(path="./nowhere"))


def test_id2label_of_the_saved_folder_is_json(nli_folder):
    assert json.loads((nli_folder / "config.json").read_text())["id2label"]["1"] == "entailment"


def test_scoring_is_silent(nli_folder, capfd, caplog):
    with caplog.at_level(logging.WARNING):
        scorer(nli_folder, max_length=8).both_ways([*PAIRS, ("film " * 500, "bridge")])
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""
    assert not caplog.records
