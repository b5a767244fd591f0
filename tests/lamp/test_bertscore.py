from __future__ import annotations

import pytest
import torch

from conf.errors import ModelError
from lamp.bertscore import check_folder, load_bertscore

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "on", "a", "mat", "dog")
SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 34,
}


@pytest.fixture(scope="module")
def bert_folder(tmp_path_factory):
    """A BERT of random weights; its path holds "t5", which bert-score takes for a model type."""
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = tmp_path_factory.mktemp("beside-t5") / "bert"
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=len(WORDS), **SIZES)).save_pretrained(folder)
    BertTokenizer(vocab={word: n for n, word in enumerate(WORDS)}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def roberta_folder(tmp_path_factory):
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import RobertaConfig, RobertaModel, RobertaTokenizer

    folder = tmp_path_factory.mktemp("beside") / "roberta"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the cat sat on the mat"] * 5, trainer)
    folder.mkdir()
    tokenizer.model.save(str(folder))
    vocabulary, merges = str(folder / "vocab.json"), str(folder / "merges.txt")
    RobertaTokenizer(vocab=vocabulary, merges=merges).save_pretrained(folder)
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=300, pad_token_id=1, bos_token_id=0, eos_token_id=2, type_vocab_size=1, **SIZES
    )
    RobertaModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def bertscore(bert_folder):
    return load_bertscore(str(bert_folder))


def test_without_a_folder_there_is_no_scorer():
    assert load_bertscore(None) is None


def test_equal_texts_score_one_and_others_less(bertscore):
    assert bertscore("the cat sat", "the cat sat") == pytest.approx(1, abs=1e-6)
    assert 0 < bertscore("a dog ran", "the cat sat") < 0.99


def test_a_blank_text_scores_zero_and_does_not_stop_the_others(bertscore):
    scores = bertscore.score(["", "the cat", " \n", "a dog"], ["a dog", "the cat", "", ""])
    assert scores == [0.0, pytest.approx(1, abs=1e-6), 0.0, 0.0]
    assert bertscore.score([], []) == []


def test_a_text_longer_than_the_model_is_cut(bertscore):
    assert bertscore.tokenizer.model_max_length == 34
    assert 0 < bertscore("a dog ran on " * 50, "the cat sat") < 1


def test_the_matching_is_that_of_the_bert_score_package(roberta_folder):
    from bert_score import BERTScorer

    reference = BERTScorer(model_type=str(roberta_folder), num_layers=2, device="cpu")
    ours = load_bertscore(str(roberta_folder))
    reference._tokenizer = ours.tokenizer
    predictions, golds = ["the dog ran", "on a mat"], ["the cat sat", "on the mat the cat"]
    _, _, expected = reference.score(predictions, golds)
    assert ours.score(predictions, golds) == expected.tolist()


def test_robertas_first_word_has_its_leading_blank(roberta_folder):
    tokenizer = load_bertscore(str(roberta_folder)).tokenizer
    assert tokenizer.encode("the cat") == tokenizer.encode(" the cat")
    assert tokenizer.model_max_length == 32  # 34 positions less those up to the padding index


def test_the_tuned_layer_is_found_by_the_folders_name(bert_folder, monkeypatch):
    monkeypatch.setattr("lamp.bertscore._tuned_layers", lambda: {"bert": 1})
    scorer = load_bertscore(str(bert_folder))
    assert "bert, layer 1 of 2, no idf, no rescaling" in scorer.description
    assert len(scorer.model.encoder.layer) == 1


def test_the_table_of_tuned_layers_knows_the_usual_model():
    from lamp.bertscore import _tuned_layers

    assert _tuned_layers()["roberta-large"] == 17


@pytest.mark.parametrize(
    ("missing", "what"),
    [
        ("config.json", "expected config.json"),
        ("model.safetensors", "expected weights"),
        ("tokenizer.json tokenizer_config.json", "expected a tokenizer"),
    ],
)
def test_an_incomplete_folder_is_named_before_anything_is_loaded(tmp_path, missing, what):
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        if name not in missing.split():
            (tmp_path / name).write_text("{}")
    with pytest.raises(ModelError, match=f"evaluation.bertscore: {what}"):
        check_folder(tmp_path)


def test_an_encoder_decoder_is_refused(bert_folder, tmp_path):
    for file in bert_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "config.json").write_text('{"model_type": "t5", "is_encoder_decoder": true}')
    with pytest.raises(ModelError, match="expected an encoder such as roberta-large"):
        load_bertscore(str(tmp_path))
