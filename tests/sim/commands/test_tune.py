"""Choosing settings: grid, rule, what is written, and that no target user's text gets in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from conf.compose import compose
from conf.errors import ConfigError, RunError
from lamp import dataset, metrics, tasks
from lamp.dataset import LampData
from lamp.records import Pair, ProfileItem, Query, UserHistory
from sim.commands import tune
from sim.run.probe import Speed
from sim.statistics import Resampling
from sim.tuning import output
from sim.tuning import trials as running
from sim.tuning.estimate import estimate
from sim.tuning.grid import Setting, Trial, applied, choose, edges, grid
from sim.tuning.output import Stage, preset, remarks, table_of
from storage import jsonlines
from strategy.progress import LoggedProgress
from tests.plugins.small_runs import words

TASK = tasks.task(compose(["task=lamp_4"]).task)
RESAMPLING = Resampling(resamples=300, confidence=0.95, seed=0)
USERS = tuple(f"user-{number}" for number in range(12))


def trial(rate: float, scores: Sequence[float], steps: int = 10, **more: float | str) -> Trial:
    setting: Setting = {"qlora.learning_rate": rate, **more}
    width = metrics.sums_width(TASK)
    sums = {
        user: (1.0, 0.0, score, *[0.0] * (width - 3))
        for user, score in zip(USERS, scores, strict=True)
    }
    return Trial("adapters", setting, sums, steps=steps)


def level(value: float) -> list[float]:
    return [value + 0.01 * (place % 3) for place in range(len(USERS))]


def history(user: str, records: int) -> UserHistory:
    pairs = tuple(Pair(f"{user}-{n}", f"{user} text {n}", f"{user} title") for n in range(records))
    profile = tuple(ProfileItem(p.id, {"text": p.input, "title": p.response}) for p in pairs)
    query = Query(
        f"{user}-q", f"Generate a headline for the following article: {user} asks", "gold"
    )
    return UserHistory(user, profile, pairs, (query,))


def lamp_data() -> LampData:
    targets = (history("TARGET-a", 9), history("TARGET-b", 8))
    public = tuple(history(f"public-{n}", 1 + n) for n in range(6))
    lengths = {user.user_id: len(user.pairs) for user in (*targets, *public)}
    return LampData(TASK, targets, public, "user", {}, ("TARGET note",), lengths=lengths)


def test_the_grid_is_the_product_of_what_is_given_and_leaves_out_what_is_not():
    config = compose(
        ["tune.learning_rates=[1e-3,1e-2]", "tune.epochs=[2]", "tune.batch_sizes=[]"], tuning=True
    )
    assert grid(config, "adapters") == [
        {"qlora.learning_rate": 1e-3, "qlora.epochs": 2},
        {"qlora.learning_rate": 1e-2, "qlora.epochs": 2},
    ]
    changed = applied(config, grid(config, "adapters")[1])
    assert (changed.qlora.learning_rate, changed.qlora.epochs) == (1e-2, 2)
    assert changed.qlora.batch_size == config.qlora.batch_size


def test_the_depth_of_retrieval_is_tried_on_m_base_and_keyed_apart(monkeypatch, tmp_path):
    words = ["tune.stages=[retrieval]", "tune.rag_items=[1,4]", f"paths.cache={tmp_path}"]
    config = compose(words, tuning=True)
    asked = []

    def answered(_arm, users, *_others, retrieved, **_more):
        asked.append(retrieved)
        score = retrieved / 10
        return [SimpleNamespace(user_id=user.user_id, sums=(1.0, 1.0, score)) for user in users]

    monkeypatch.setattr(running, "answer_together", answered)
    made = SimpleNamespace(losses=(1.0,) * 5)
    monkeypatch.setattr(running, "_base", lambda *_: made)
    monkeypatch.setattr(running, "_loaded", lambda *_: SimpleNamespace(model=None, tokenizer=None))
    bench = running.make_bench(config, lamp_data(), LoggedProgress())
    found = list(running.retrieval_trials(bench))
    assert asked == [1, 4]
    assert [each.setting for each in found] == [
        {"evaluation.rag_items": 1},
        {"evaluation.rag_items": 4},
    ]
    assert [each.sums for each in running.retrieval_trials(bench)] == [each.sums for each in found]
    assert asked == [1, 4]  # read from the log
    assert compose([]).tune.stages == ("base", "cloud", "adapters", "augmentation")
    tuned = replace(bench, config=replace(config, qlora=replace(config.qlora, base_rag=True)))
    assert len(list(running.retrieval_trials(tuned))) == 2
    assert asked == [1, 4, 1, 4]  # an M_base tuned on such prompts is another one


def test_the_best_is_chosen_where_nothing_cheaper_is_as_good():
    trials = [trial(1e-3, level(0.2), steps=5), trial(1e-2, level(0.6)), trial(1e-1, level(0.4))]
    choice = choose(TASK, trials, RESAMPLING)
    assert choice.chosen is choice.best is trials[1]
    assert choice.edges == ()


def test_within_one_standard_error_the_fewest_steps_are_taken():
    noisy = [0.6 + (0.2 if place % 2 else -0.19) for place in range(len(USERS))]
    trials = [trial(1e-3, noisy, steps=40), trial(1e-2, [0.6] * len(USERS), steps=20)]
    choice = choose(TASK, trials, RESAMPLING)
    assert choice.best is trials[0]
    assert choice.chosen is trials[1]
    assert choice.error == pytest.approx(0.2 / len(USERS) ** 0.5, rel=0.2)


def test_lower_is_better_where_the_metric_is_an_error():
    stars = tasks.task(compose(["task=lamp_3"]).task)
    trials = [
        replace(
            trial(rate, level(0)),
            sums=dict.fromkeys(USERS, (1.0, 0.0, error, error**2)),
        )
        for rate, error in ((1e-3, 2.0), (1e-2, 0.5))
    ]
    assert choose(stars, trials, RESAMPLING).chosen is trials[1]


def test_a_setting_that_failed_is_never_chosen_and_its_reason_is_told():
    failed = Trial(
        "adapters", {"qlora.learning_rate": 1.0}, note="training: expected a finite loss"
    )
    good = trial(1e-2, level(0.5))
    choice = choose(TASK, [failed, good], RESAMPLING)
    assert choice.chosen is good
    stage = Stage("adapters", TASK, (failed, good), choice, RESAMPLING)
    assert any("expected a finite loss" in line for line in remarks(stage))
    with pytest.raises(RunError, match=r"could be scored.*expected a finite loss"):
        choose(TASK, [failed], RESAMPLING)


def test_the_edge_of_the_grid_is_told_for_numbers_with_several_values():
    tried: list[Setting] = [
        {"a": 1, "b": 5, "c": "x"},
        {"a": 2, "b": 5, "c": "y"},
        {"a": 3, "b": 5},
    ]
    assert edges(tried[2], tried) == ("a",)
    assert edges(tried[1], tried) == ()


def test_the_table_marks_the_chosen_setting_and_fits_80_columns(capsys):
    from rich.console import Console

    trials = (trial(1e-3, level(0.2)), trial(1e-2, level(0.6)))
    stage = Stage("adapters", TASK, trials, choose(TASK, trials, RESAMPLING), RESAMPLING)
    marks = [row[0].text for row in table_of(stage).rows]
    assert marks == ["", "*"]
    output.print_stage(stage, Console(width=80))
    shown = capsys.readouterr().out
    assert "edge of the grid: qlora.learning_rate" in " ".join(shown.split())
    assert max(map(len, shown.splitlines())) <= 80


def test_a_preset_holds_the_keys_of_its_group_and_composes(tmp_path):
    trials = (trial(1e-2, level(0.6), **{"qlora.epochs": 3}),)
    texts = (replace(trials[0], stage="augmentation", setting={"filters.eps_scf": 0.5}),)
    stages = [
        Stage("adapters", TASK, trials, choose(TASK, trials, RESAMPLING), RESAMPLING),
        Stage("augmentation", TASK, texts, choose(TASK, texts, RESAMPLING), RESAMPLING),
    ]
    assert preset(stages, "qlora") == {"learning_rate": 1e-2, "epochs": 3}
    out = tmp_path / "experiment" / "mine.yaml"
    output.write(out, stages, compose([]), lamp_data(), ["task=lamp_4"])
    text = out.read_text()
    assert text.startswith("# @package _global_\n# Tuned on 2 public users of LaMP_4")
    assert yaml.safe_load(text) == {
        "qlora": {"learning_rate": 0.01, "epochs": 3},
        "filters": {"eps_scf": 0.5},
    }
    assert len(list(jsonlines.read(tmp_path / "experiment" / "mine.trials.jsonl"))) == 2


@pytest.mark.parametrize(
    "out", ["mine.yaml", "conf/qlora/mine.yml", "conf/task/mine.yaml", "qlora/mine.yaml"]
)
def test_a_place_that_no_preset_is_read_from_is_refused_before_anything_runs(out):
    with pytest.raises(ConfigError, match=r"in conf/experiment, or in conf/qlora"):
        tune.main([f"out={out}"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["tune.users=100"], "holdout must be >= 120"),
        (["tune.least_kept=0.5"], "least_kept must be <= tune.most_kept"),
        (["out=conf/qlora/a.yaml", "out=conf/qlora/b.yaml"], "given twice"),
        (["--dryrun"], "no such option"),
        (["tune.learning_rates=[0]"], "learning_rates"),
    ],
)
def test_bad_words_are_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        tune.main(given)


def test_a_run_refuses_what_only_tuning_reads():
    with pytest.raises(ConfigError, match="has no effect on a run"):
        compose(["tune.users=5"])


def test_pseudo_targets_are_the_longest_public_histories_and_no_target_user_is_left():
    data = lamp_data()
    found = dataset.pseudo_targets(data, 2, exclude_contaminated=True, max_words=99)
    assert [user.user_id for user in found.targets] == ["public-4", "public-5"]
    assert [user.user_id for user in found.public] == [f"public-{n}" for n in range(4)]
    assert found.skipped == ("TARGET-a", "TARGET-b")
    everything = json.dumps([repr(found.targets), repr(found.public), repr(found.notes)])
    assert "TARGET" not in everything  # ids alone are left, under skipped
    with pytest.raises(ConfigError, match="there are 6 public users"):
        dataset.pseudo_targets(data, 6, exclude_contaminated=True, max_words=99)


def test_the_estimate_counts_every_setting_and_grows_with_the_grid():
    data = dataset.pseudo_targets(lamp_data(), 2, exclude_contaminated=True, max_words=99)
    small, large = (
        compose(["tune.stages=[base,adapters]", f"tune.epochs={epochs}"], tuning=True)
        for epochs in ("[1]", "[1,2]")
    )
    speed = Speed(train_s=1e-3, read_s=1e-4, write_s=1e-2, batch=16)
    speeds = {"device": speed, "cloud": speed}
    first, second = (estimate(config, data, speeds) for config in (small, large))
    assert [len(stage.settings) for stage in first] == [4, 3]
    assert second[1].steps == 3 * first[1].steps
    assert second[1].seconds > first[1].seconds


@pytest.fixture
def small(qwen2_folder: Path, tmp_path: Path) -> list[str]:
    own = ["tune.users=2", "tune.base_learning_rates=[1e-3]", "tune.base_epochs=[1]"]
    own += ["tune.cloud_learning_rates=[1e-3]", "tune.cloud_epochs=[1]", "tune.batch_sizes=[8]"]
    own += ["tune.learning_rates=[1e-3,1e-2]", "tune.epochs=[1]", "tune.temperatures=[]"]
    own += ["tune.prompts=[]", "tune.least_kept=0", "tune.most_kept=1", "tune.rag_items=[1,2]"]
    own += ["tune.stages=[base,retrieval,cloud,adapters,augmentation]"]
    return [each for each in words(qwen2_folder, tmp_path, *own) if each != "name=run"]


@pytest.mark.slow
def test_all_stages_run_are_remembered_and_never_see_a_target_user(
    small, tmp_path, capsys, monkeypatch
):
    config = compose(small, tuning=True)
    targets = dataset.load(config).targets
    out = tmp_path / "conf" / "qlora" / "mine.yaml"
    monkeypatch.setattr(output, "FOLDER", tmp_path / "conf")
    assert tune.main([*small, f"out={out}"]) == 0
    shown = capsys.readouterr().out
    for title in output.TITLES.values():
        assert f"{title}:" in shown
    values = yaml.safe_load(out.read_text())
    assert {"base_learning_rate", "cloud_learning_rate", "learning_rate"} <= values.keys()
    log = tmp_path / "cache" / "tune" / "trials.jsonl"
    trials = log.read_bytes()

    # nothing that the tuning left behind holds a target user's text; the world's own files do
    texts = [text.encode() for user in targets for text in _own_texts(user, config)]
    kept = [tmp_path / "cache" / "public", tmp_path / "cache" / "augmentation.sqlite", log, out]
    files = [file for each in kept for file in ([each] if each.is_file() else each.iterdir())]
    assert texts
    assert not [file.name for file in files for text in texts if text in file.read_bytes()]

    # the same line again measures nothing, and says the same
    assert tune.main([*small, f"out={out}"]) == 0
    assert log.read_bytes() == trials
    assert yaml.safe_load(out.read_text()) == values


def _own_texts(user: UserHistory, config: object) -> list[str]:
    """Texts that no public user has as well."""
    public = repr(dataset.load(config).public)  # type: ignore[arg-type]
    return [text for pair in user.pairs for text in (pair.input,) if text not in public]
