"""The miniature models: folders that load like any checkpoint, cached by what made them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from conf.compose import compose
from conf.errors import ConfigError, DataError
from conf.schema import NliModelConfig
from lamp.dataset import load
from lamp.records import Pair
from models import miniature
from models.chat import encode_prompt
from models.loading import load_causal, load_tokenizer
from models.miniature.batches import by_length
from models.miniature.corpus import make_corpus
from models.miniature.nli import LESSONS, nli_source
from models.miniature.tokenizer import train_tokenizer
from models.nli import NliScorer
from models.nli_pairs import read_nli

TINY = (
    "world.population=12",
    "world.queries_per_user=5",
    "world.history_min=3",
    "world.history_max=6",
    "users=2",
    "model.build.holdout=3",
    "model.build.vocabulary=600",
    "model.build.cloud={layers: 1, width: 16, heads: 2, feed_forward: 32}",
    "model.build.device={layers: 1, width: 8, heads: 1, feed_forward: 16}",
    "model.build.nli={layers: 1, width: 16, heads: 2, feed_forward: 32}",
    "model.build.cloud_steps=2",
    "model.build.device_steps=2",
    "model.build.nli_steps=2",
    "model.build.tokens_per_batch=512",
)


def tiny_config(cache, *overrides):
    return compose(["task=lamp_3", f"paths.cache={cache}", *TINY, *overrides])


def silent(phase, done, total):
    pass


def build(config, data, cache, progress):
    max_words = config.task.max_field_words
    return replace(config, model=miniature.build(config.model, data, max_words, cache, progress))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """One tiny build: (configuration as composed, data, configuration with paths, phases)."""
    cache = tmp_path_factory.mktemp("cache")
    config = tiny_config(cache)
    data = load(config)
    phases = []
    result = build(config, data, cache, lambda *step: phases.append(step))
    return config, data, result, phases


def test_the_folders_load_like_any_checkpoint(built):
    model = built[2].model
    for causal in (model.cloud, model.device):
        tokenizer = load_tokenizer(causal.path)
        network = load_causal(causal)
        ids = encode_prompt(tokenizer, "review: it tastes delicious. Ünseen 🙂", None, 128)
        assert network.config.model_type == "qwen2"
        assert max(ids) < network.config.vocab_size
    scorer = NliScorer.load(NliModelConfig(path=model.nli.path, max_length=64))
    forward, backward = scorer.both_ways([("it tastes tasty.", "the flavor is savory.")])[0]
    assert 0 <= forward <= 1
    assert 0 <= backward <= 1


def test_the_tokenizer_writes_any_text_back():
    tokenizer = train_tokenizer(["the flavor is savory."] * 3, vocabulary=300)
    text = "Ünseen 🙂 <tag>\n\ttext"
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(ids) == text
    assert tokenizer.pad_token_id is not None


def test_the_chat_template_has_qwens_markup_and_no_system_turn():
    tokenizer = train_tokenizer(["x"], vocabulary=300)
    turn = [{"role": "user", "content": "hello"}]
    rendered = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    assert rendered == "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"


def test_progress_tells_each_networks_steps(built):
    phases = built[3]
    for name in ("cloud model", "device model", "NLI model"):
        assert [step for step in phases if step[0] == name] == [(name, 1, 2), (name, 2, 2)]


def test_the_report_has_sizes_and_held_out_figures(built):
    report = json.loads((Path(built[2].model.cloud.path).parent / "report.json").read_text())
    assert report["target"] == "paraphrase"
    assert set(report) >= {"cloud", "device", "nli", "seconds", "vocabulary", "users"}
    assert 0 <= report["nli"]["accuracy"] <= 1
    assert report["cloud"]["parameters"] > report["device"]["parameters"]


def test_a_second_build_is_found_in_the_cache(built):
    config, data, result, _ = built
    steps = []
    again = build(config, data, Path(config.paths.cache), lambda *step: steps.append(step))
    assert again == result
    assert not steps


def test_the_same_input_gives_the_same_weights(built, tmp_path):
    config, data, result, _ = built
    again = build(config, data, tmp_path, silent)
    for name in ("cloud", "device", "nli"):
        first, second = (
            Path(getattr(c.model, name).path, "model.safetensors").read_bytes()
            for c in (result, again)
        )
        assert first == second


def test_an_interrupt_ends_all_three_trainings_at_once(tmp_path):
    config = tiny_config(tmp_path, "model.build.device_steps=100000")
    told = []

    def interrupted(phase, done, total):
        told.append(done)
        if phase == "cloud model":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(config, load(config), tmp_path, interrupted)
    assert max(told) < 1000
    assert not list(tmp_path.rglob("model.safetensors"))


def test_held_out_users_have_no_part_in_the_build(built, tmp_path):
    config, _, result, _ = built
    other = replace(config, users=3)
    assert build(other, load(other), tmp_path, silent).model.cloud.path.endswith(
        result.model.cloud.path.rpartition("models")[2]
    )


def test_without_build_settings_nothing_can_be_built(built, tmp_path):
    config, data, _, _ = built
    bare = replace(config, model=replace(config.model, build=None))
    with pytest.raises(ConfigError, match="model=miniature"):
        build(bare, data, tmp_path, silent)


def foreign_user(user):
    pairs = tuple(Pair(p.id, f"Call me Ishmael, {p.id}.", p.response) for p in user.pairs)
    return replace(user, pairs=pairs)


def test_foreign_text_takes_similar_pairs_and_needs_nli_data(built):
    config, data, _, _ = built
    settings = config.model.build
    corpus = make_corpus(data.task, [foreign_user(user) for user in data.public], settings)
    assert corpus.target == "similar"
    assert all(target is not None and target.id != pair.id for pair, target in corpus.shown)
    with pytest.raises(ConfigError, match=r"model\.build\.nli_data"):
        nli_source(settings, ["Call me Ishmael."], ["Call me Ishmael."])


def test_paraphrases_of_foreign_text_are_refused(built):
    config, data, _, _ = built
    settings = replace(config.model.build, augmentation_target="paraphrase")
    with pytest.raises(ConfigError, match="augmentation_target"):
        make_corpus(data.task, [foreign_user(user) for user in data.public], settings)


def test_batches_hold_similar_lengths_up_to_the_token_limit():
    words = ["a", "ccc", "bb", "ddddddddd", "ee", "f"]
    batches = by_length(words, len, 6)
    assert batches == [["a", "f", "bb"], ["ee", "ccc"], ["ddddddddd"]]


def test_nli_lessons_cover_the_whole_training():
    ends = [lesson[0] for lesson in LESSONS]
    assert ends == sorted(ends)
    assert ends[-1] == 1.0


def test_nli_pairs_are_read_from_a_file(tmp_path):
    path = tmp_path / "nli.jsonl"
    path.write_text('{"premise": "a", "hypothesis": "b", "label": "neutral"}\n\n')
    assert read_nli(path) == [("a", "b", "neutral")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "empty"),
        ("{broken\n", "line 1"),
        ('{"premise": "a", "label": "neutral"}\n', "line 1"),
        ('{"premise": "a", "hypothesis": "b", "label": "maybe"}\n', "field 'label'"),
    ],
)
def test_a_bad_nli_file_is_named_by_file_and_line(tmp_path, content, message):
    path = tmp_path / "nli.jsonl"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        read_nli(path)


def test_a_missing_nli_file_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"model\.build\.nli_data"):
        read_nli(tmp_path / "none.jsonl")


@pytest.mark.quality
@pytest.mark.timeout(900)
def test_a_full_build_learns_the_augmentation_prompt_and_nli(tmp_path):
    config = compose(["task=lamp_2", f"paths.cache={tmp_path}"])
    result = build(config, load(config), tmp_path, silent)
    report = json.loads((Path(result.model.cloud.path).parent / "report.json").read_text())
    assert report["cloud"]["reply_form"] > 0.95
    assert report["cloud"]["same_response"] > 0.9
    assert report["nli"]["accuracy"] > 0.8
