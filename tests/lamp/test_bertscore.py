from __future__ import annotations

import pytest
import torch

from conf.errors import ModelError
from lamp.bertscore import check_source, load_bertscore

SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 34,
}


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


def test_equal_texts_score_one_and_others_less(bertscore):
    equal, other = bertscore.score(["the cat sat", "a dog ran"], ["the cat sat"] * 2)
    assert equal == pytest.approx(1, abs=1e-6)
    assert 0 < other < 0.99


def test_a_blank_text_scores_zero_and_does_not_stop_the_others(bertscore):
    scores = bertscore.score(["", "the cat", " \n", "a dog"], ["a dog", "the cat", "", ""])
    assert scores == [0.0, pytest.approx(1, abs=1e-6), 0.0, 0.0]
    assert bertscore.score([], []) == []


def test_a_text_longer_than_the_model_is_cut(bertscore):
    assert bertscore.tokenizer.model_max_length == 34
    (score,) = bertscore.score(["a dog ran on " * 50], ["the cat sat"])
    assert 0 < score < 1


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
        check_source(str(tmp_path))


def test_an_encoder_decoder_is_refused(bert_folder, tmp_path):
    for file in bert_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "config.json").write_text('{"model_type": "t5", "is_encoder_decoder": true}')
    with pytest.raises(ModelError, match="expected an encoder such as roberta-large"):
        load_bertscore(str(tmp_path))


def test_many_texts_at_once_score_as_each_alone_without_the_space_around_them(bertscore):
    texts = ["the cat sat", "a dog", "on a mat the cat sat on a mat", "dog "]
    golds = [" a dog sat", "a dog", "the mat", "cat\n"]
    alone = [
        bertscore.score([text.strip()], [gold.strip()])[0]
        for text, gold in zip(texts, golds, strict=True)
    ]
    assert bertscore.score(texts, golds) == pytest.approx(alone, abs=1e-6)


def test_a_hub_name_is_looked_up_before_anything_else_is_done(monkeypatch):
    from transformers import AutoConfig, BertConfig

    asked = []

    def known(source, **settings):
        asked.append((source, settings["local_files_only"]))
        return BertConfig()

    monkeypatch.setattr(AutoConfig, "from_pretrained", known)
    check_source("owner/encoder")
    assert asked == [("owner/encoder", False)]


def test_a_hub_name_that_cannot_be_reached_is_told_with_the_remedy(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"'owner/encoder'.*or null to report 'n/a'"):
        check_source("owner/encoder")
    with pytest.raises(ModelError, match=r"expected config.json in the folder 'none'"):
        check_source("/nowhere/none")
