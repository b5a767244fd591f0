"""The configuration: presets compose, typos get the nearest name, values keep their bounds."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import subprocess
import sys
from operator import attrgetter
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.compose import compose, expand, from_json, to_json
from conf.errors import ConfigError
from conf.groups import FOLDER, groups
from conf.schema import Config

PRESETS = sorted(path.relative_to(FOLDER) for path in FOLDER.rglob("*.yaml"))
REQUIRED = {  # what a preset leaves to the command line
    "privacy/per_user.yaml": ["privacy.csv=policies.csv"],
    "augmenter/replay.yaml": ["augmenter.file=candidates.jsonl"],
    **{
        f"experiment/{name}.yaml": ["data=lamp"]
        for name in (
            "paper",
            "oppu",
            "table1",
            "table2",
            "table3",
            "figure2",
            "thresholds",
            "rank",
            "dac24",
        )
    },
    "world/small.yaml": ["model=tiny"],
    "engine/deployment.yaml": ["engine.superlink=localhost:8000", "data=lamp"],
}


@pytest.fixture(scope="module")
def default() -> Config:
    return compose([])


@pytest.mark.parametrize("preset", PRESETS, ids=str)
def test_every_yaml_file_composes(preset: Path) -> None:
    words = [] if len(preset.parts) == 1 else [f"{preset.parent}={preset.stem}"]
    config = compose([*words, *REQUIRED.get(preset.as_posix(), [])])
    assert from_json(to_json(config)) == config


def test_groups_are_the_ones_that_the_documentation_names() -> None:
    assert {"task", "model", "privacy", "augmenter", "filters", "qlora"} <= set(groups())
    assert {"resources", "experiment", "paths", "world", "evaluation"} <= set(groups())
    assert groups()["task"] == (
        "dialogue",
        "lamp_1",
        "lamp_2",
        "lamp_3",
        "lamp_4",
        "lamp_5",
        "lamp_7",
    )


def test_defaults_are_the_documented_assumptions(default: Config) -> None:
    filters = default.filters
    assert (filters.eps_scf, filters.eps_tdf) == (0.75, 0.75)
    assert (filters.eps_min_len, filters.eps_max_len) == (0.8, 1.5)
    sampling = default.augmenter.sampling
    assert (default.augmenter.k, sampling.temperature, sampling.top_p) == (5, 0.7, 1.0)
    assert (default.users, default.privacy.kind, default.seed) == (20, "mixed", 0)
    paper = compose(["model=qwen2.5"]).qlora
    assert (paper.quant_type, paper.rank, paper.alpha) == ("nf4", 16, 8)
    assert (paper.learning_rate, paper.epochs, paper.batch_size) == (1e-4, 2, 16)


def test_the_model_preset_brings_its_qlora_and_augmenter() -> None:
    miniature, paper = compose(["model=miniature"]), compose(["model=qwen2.5"])
    assert miniature.qlora == compose(["model=qwen2.5", "qlora=miniature"]).qlora
    assert paper.qlora == compose(["qlora=paper"]).qlora
    assert miniature.qlora != paper.qlora
    assert miniature.augmenter.sampling.max_new_tokens < paper.augmenter.sampling.max_new_tokens


def test_the_command_line_wins_over_experiment_and_model_preset() -> None:
    config = compose(["experiment=smoke", "users=7", "qlora=paper", "model=qwen2.5"])
    assert config.users == 7
    assert config.model.name == "qwen2.5"
    assert config.qlora.learning_rate == 1e-4


def test_later_words_win() -> None:
    assert compose(["users=5", "users=6"]).users == 6
    assert compose(["task=lamp_1", "task=lamp_7"]).task.name == "lamp_7"


def test_a_key_that_no_yaml_mentions_can_be_set_and_referred_to() -> None:
    config = compose(["filters.length_unit=words", "evaluation.batch_size=${users}", "+users=9"])
    assert (config.filters.length_unit, config.evaluation.batch_size) == ("words", 9)
    assert compose(["qlora.rank=${qlora.alpha}"]).qlora.rank == config.qlora.alpha


def test_one_item_of_a_list_can_be_set(default: Config) -> None:
    assert compose(["privacy.groups.0.high=0.3"]).privacy.groups[0].high == 0.3
    assert compose([]) == default  # a word holds for its own call only


@pytest.mark.parametrize(
    ("word", "message"),
    [
        (
            "privacy=mixd",
            "privacy=mixd: no such name. Did you mean 'mixed'? "
            "Known: beta, fixed, mixed, per_user, uniform",
        ),
        (
            "task=lamp_6",
            "task=lamp_6: no such name. Did you mean 'lamp_7'? Known: dialogue, lamp_1, ",
        ),
        ("task=null", "task: expected one name. Known: dialogue, lamp_1, "),
        ("privacy=[fixed,mixed]", "privacy: expected one name. Known: beta, "),
        ("qlora.rnak=8", "qlora.rnak: unknown key. Did you mean 'qlora.rank'? Known in qlora: "),
        ("rank=8", "rank: unknown key. Did you mean 'qlora.rank'? Known in qlora: quant_type, "),
        ("usrs=5", "usrs: unknown key. Did you mean 'users'? Known: task, model, "),
        ("experimnt=smoke", "experimnt: unknown key. Did you mean 'experiment'? Known: task, "),
        ("qlora.zzzzz=1", "qlora.zzzzz: unknown key. Known in qlora: quant_type, "),
        ("hydra.run.dir=x", "hydra.run.dir: unknown key. Known: task, "),
        ("user", "'user': expected key=value, for example users=20. Did you mean 'users=...'?"),
        ("=5", "'=5': expected key=value"),
        ("~users=5", "~users=5: keys are set, not removed or moved: users=value"),
        ("task@x=lamp_1", "task@x=lamp_1: keys are set, not removed or moved: task=value"),
        ("users=5,20", "users: several values make several runs: add -m, or write a list as "),
        ("data=~/lamp", "data: the value ~/lamp cannot be read; put it in two pairs of quotes: "),
        ("users=0", "users must be >= 1, got 0"),
        ("qlora.cohort=0", "qlora.cohort must be 'auto' or >= 1, got 0"),
        ("qlora.cohort=many", "qlora.cohort must be 'auto' or a whole number, got \"many\""),
        ("name=42", "name must be text, got 42; in quotes it is text: name='\"42\"'"),
        ("ratios=[0.5,1.5]", "ratios.1 must be <= 1, got 1.5"),
        (
            "privacy.ratio=0.5",
            "privacy.ratio has no effect while privacy.kind is mixed; add privacy",
        ),
        (
            "evaluation.weights=q4_0",
            "evaluation.weights has no effect while evaluation.runtime is transformers; add eval",
        ),
        (
            "filters.eps_embedding=0.9",
            "filters.eps_embedding has no effect while filters.judge is nli; set filters.eps_scf",
        ),
        (
            "thresholds=[{eps_embedding: 0.9}]",
            "thresholds.0.eps_embedding has no effect while filters.judge is nli",
        ),
        (
            "model.device.path=org/name",
            "model.device.path has no effect while model=miniature builds its models; choose",
        ),
        (
            "model.nli.revision=main",
            "model.nli.revision has no effect while model=miniature builds its models; choose",
        ),
        ("holdout=0.2", "holdout has no effect while split is auto; add split=holdout"),
        ("split_seed=1", "split_seed has no effect while all records are used; add split=holdout"),
        ("holdout=1", "holdout must be < 1, got 1"),
        (
            "thresholds=[{eps_scf: 0.5, keep_share: 0.1}]",
            "the thresholds of thresholds.0 have no effect while thresholds.0.keep_share is set",
        ),
        ("filters.keep_share=0", "filters.keep_share must be > 0, got 0"),
        ("experiment=paper", "data is required: set data=..."),
        ("privacy=per_user", "privacy.csv is required: set privacy.csv="),
        ("name='${nope}'", "the configuration cannot be composed: Interpolation key 'nope' not"),
    ],
)
def test_what_is_refused_is_named_in_one_line(word: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose([word])
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("evaluation.runtime=llamacpp", "has no effect while evaluation.runtime is llamacpp"),
        ("qlora.dequantise_once=false", "has no effect on weights in 4 bits; add qlora.dequantise"),
    ],
)
def test_adapters_are_merged_into_the_twin_alone(word: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"evaluation.merge_adapters {message}"):
        compose(["evaluation.merge_adapters=true", word])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["filters=quantile", "filters.eps_tdf=0.5"], "filters.eps_tdf has no effect while"),
        (
            ["filters=quantile", "thresholds=[{eps_tdf: 0.5}]"],
            "the thresholds of thresholds.0 have",
        ),
    ],
)
def test_thresholds_beside_the_best_share_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose(words)
    assert compose(["filters=quantile", "thresholds=[{keep_share: 0.2}]"]).thresholds


def changed(config: Config, **values: object) -> Config:
    """Change keys (``qlora__rank=4``) on the way through JSON: much faster than composing."""
    tree = json.loads(to_json(config))
    for path, value in values.items():
        *sections, leaf = path.split("__")
        section = tree
        for name in sections:
            section = section[int(name) if name.isdigit() else name]
        section[leaf] = value
    return from_json(json.dumps(tree))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"users": 2.5}, "users must be a whole number, got 2.5"),
        ({"users": True}, "users must be a whole number, got true"),
        ({"users": "5"}, 'users must be a whole number, got "5"'),
        (
            {"evaluation__ship_predictions": 1},
            "evaluation.ship_predictions must be true or false, ",
        ),
        ({"methods": "device"}, 'methods must be a list like [a,b], got "device"'),
        ({"augmenter__k": 0}, "augmenter.k must be >= 1, got 0"),
        ({"qlora__learning_rate": 0}, "qlora.learning_rate must be > 0, got 0"),
        ({"qlora__dropout": 1}, "qlora.dropout must be < 1, got 1"),
        ({"filters__eps_scf": math.nan}, "filters.eps_scf must be a finite number, got NaN"),
        (
            {"part": "tset"},
            "part must be one of train, dev, test, got \"tset\". Did you mean 'test'?",
        ),
        ({"qlora": 5}, "qlora must be a group of keys, got 5"),
        (
            {"qlora__rnak": 5},
            "qlora.rnak: unknown key. Did you mean 'qlora.rank'? Known in qlora: ",
        ),
    ],
)
def test_a_value_outside_its_bounds_is_refused(
    default: Config, values: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        changed(default, **values)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"privacy__groups__0__share": 0.36},
            "the shares of privacy.groups must add up to 1, got ",
        ),
        ({"privacy__groups": []}, "the shares of privacy.groups must add up to 1, got 0"),
        (
            {"privacy__groups__0__low": 0.9},
            "privacy.groups: low must be <= high in 'guarded', got ",
        ),
        ({"privacy__groups__0__name": "open"}, "privacy.groups must not repeat 'open'"),
        (
            {"privacy__kind": "uniform", "privacy__low": 0.6, "privacy__high": 0.4},
            "privacy.low must be <= privacy.high, got 0.6 > 0.4",
        ),
        ({"privacy__kind": "per_user"}, "privacy.csv is required: set privacy.csv="),
        (
            {"filters__eps_min_len": 2},
            "filters.eps_min_len must be <= filters.eps_max_len, got 2 > ",
        ),
        ({"methods": []}, "methods must name at least one method"),
        ({"methods": ["device", "device"]}, "methods must not repeat 'device'"),
        ({"ratios": []}, "ratios must hold at least one ratio"),
        ({"ratios": [0.5, 0.5]}, "ratios must not repeat '0.5'"),
        ({"world__history_min": 99}, "world.history_min must be <= world.history_max, got 99 > "),
        ({"users": 300}, "world.population must be > 300 to leave public users beside the target "),
        (
            {"model__build": None},
            "model.cloud.path is 'built' but model.build is not given; model.",
        ),
        ({"model__build__cloud__width": 101}, "model.build.cloud.width must be a multiple of 2 x "),
        (
            {"resources__client_gpus": 0.5},
            "resources.client_gpus must be <= resources.num_gpus, got",
        ),
        (
            {"resources__client_cpus": 1.5},
            "resources.client_cpus must be whole when above 1, got 1.5",
        ),
        ({"name": "../elsewhere"}, "name must be one folder name"),
        ({"model__build": {"holdout": 3}}, "model.build.vocabulary is required: set "),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    default: Config, values: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        changed(default, **values)
    assert str(caught.value).startswith(message)


def test_the_size_of_the_world_does_not_matter_to_other_data(default: Config) -> None:
    assert changed(default, data="lamp", users=900).users == 900


def test_all_findings_are_named_at_once(default: Config) -> None:
    with pytest.raises(ConfigError, match=r"users must be >= 1, got 0; skip_users must be >= 0"):
        changed(default, users=0, skip_users=-1)


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '"text"'])
def test_text_that_is_no_configuration_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        from_json(text)


def test_equal_configurations_give_equal_text(default: Config) -> None:
    assert to_json(from_json(to_json(default))) == to_json(default)
    assert to_json(compose(["qlora.alpha=8"])) == to_json(compose(["qlora.alpha=8.0"]))


def test_the_configuration_is_frozen(default: Config) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        default.users = 3  # type: ignore[misc]


@pytest.mark.parametrize("key", ["filters__eps_scf", "filters__eps_tdf", "qlora__warmup"])
@settings(max_examples=60, deadline=None)
@given(value=st.floats())
def test_fractions_lie_between_0_and_1(default: Config, key: str, value: float) -> None:
    path = key.replace("__", ".")
    if 0 <= value <= 1:
        assert attrgetter(path)(changed(default, **{key: value})) == value
    else:
        with pytest.raises(ConfigError, match=rf"^{path} must be "):
            changed(default, **{key: value})


@settings(max_examples=60, deadline=None)
@given(ratios=st.lists(st.sampled_from([0, 0.1, 0.5, 1]), max_size=4, unique=True), bad=st.floats())
def test_every_asked_ratio_lies_between_0_and_1(
    default: Config, ratios: list[float], bad: float
) -> None:
    if 0 <= bad <= 1:
        return
    with pytest.raises(ConfigError, match=rf"^ratios\.{len(ratios)} must be "):
        changed(default, ratios=[*ratios, bad])


@pytest.mark.parametrize(
    ("key", "least"),
    [("augmenter__k", 1), ("skip_users", 0), ("qlora__rank", 1), ("resources__retries", 0)],
)
@settings(max_examples=60, deadline=None)
@given(value=st.integers(-(10**6), 60))
def test_counts_have_a_least_value(default: Config, key: str, least: int, value: int) -> None:
    path = key.replace("__", ".")
    if value >= least:
        assert attrgetter(path)(changed(default, **{key: value})) == value
    else:
        with pytest.raises(ConfigError, match=rf"^{path} must be >= {least}, got {value}$"):
            changed(default, **{key: value})


def test_sweeps_expand_to_one_list_per_run_last_word_fastest() -> None:
    assert expand(["task=lamp_2,lamp_4", "seed=range(0,2)", "methods=[a,b]"]) == [
        ["task=lamp_2", "seed=0", "methods=[a,b]"],
        ["task=lamp_2", "seed=1", "methods=[a,b]"],
        ["task=lamp_4", "seed=0", "methods=[a,b]"],
        ["task=lamp_4", "seed=1", "methods=[a,b]"],
    ]


def test_a_glob_sweeps_over_the_names_of_a_group() -> None:
    assert expand(["task=glob(lamp_*,exclude=lamp_1)"]) == [
        [f"task=lamp_{number}"] for number in (2, 3, 4, 5, 7)
    ]


def test_without_a_sweep_there_is_one_run() -> None:
    assert expand(["users=5"]) == [["users=5"]]
    assert expand([]) == [[]]


@pytest.mark.parametrize("word", ["qlora.warmup=interval(0,1)", "task=glob(nothing*)"])
def test_what_cannot_be_enumerated_is_refused(word: str) -> None:
    with pytest.raises(ConfigError):
        expand([word])


def test_hydras_global_state_is_left_as_it_was(default: Config) -> None:
    assert not GlobalHydra.instance().is_initialized()
    with initialize_config_dir(str(FOLDER), version_base="1.3"):
        before = GlobalHydra.instance().hydra
        assert compose([]) == default
        assert GlobalHydra.instance().hydra is before
    with pytest.raises(ConfigError):
        compose(["name='${nope}'"])
    assert not GlobalHydra.instance().is_initialized()


def test_the_cache_folder_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CDCDA_CACHE", "elsewhere")
    assert compose([]).paths.cache == "elsewhere"
    monkeypatch.delenv("CDCDA_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert compose([]).paths.cache == str(tmp_path / ".cache/cdcda")
    assert compose(["paths.runs='~/runs'"]).paths.runs == str(tmp_path / "runs")


def test_a_copied_tree_reads_its_own_yaml(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "conf", ignore=shutil.ignore_patterns("__pycache__"))
    preset = tmp_path / "conf" / "privacy" / "mine.yaml"
    preset.write_text("kind: fixed\nratio: 0.25\n", encoding="utf-8")
    program = "from conf.compose import compose; print(compose(['privacy=mine']).privacy.ratio)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "0.25\n"
