"""``sim.results``: frames with documented columns, equal to the files that they come from."""

import os

import pandas as pd
import pytest

from conf.errors import ConfigError, RunError
from lamp.metrics import TEXT_METRICS
from sim.report.frames import COLUMNS
from sim.report.pooling import summarise
from sim.report.run_records import read_run
from sim.results import compare, load_run, scores
from storage import jsonlines


@pytest.fixture
def run(make_run):
    return load_run(make_run(users=5, missing={"cdcda": ("user-003",)}))


@pytest.mark.parametrize("name", COLUMNS)
def test_every_column_is_documented_and_typed_alike_in_every_run(run, make_run, name):
    frame = getattr(run, name)
    stated = [column for column in COLUMNS[name] if "<" not in column]
    assert list(frame.columns[: len(stated)]) == stated
    further = set(frame.columns) - set(stated)
    assert {each for each in further if not each.startswith("rejected_")} <= set(TEXT_METRICS)
    empty = getattr(load_run(make_run("empty", users=1, methods=("device",), queries=0)), name)
    assert dict(empty.dtypes[stated]) == dict(frame.dtypes[stated])


def test_frames_hold_what_the_files_hold(run):
    folder = run.run.folder
    answers = pd.DataFrame(jsonlines.read(folder / "answers.jsonl"))
    assert len(run.answers) == len(answers)
    pd.testing.assert_series_equal(
        run.answers.groupby("arm").rouge1.sum(),
        answers.groupby("arm").rouge1.sum(),
        check_index_type=False,
    )
    kept = run.augmentation
    assert (kept.kept + kept.filter(like="rejected_").sum(axis=1) == kept.generated).all()
    assert run.ledger.bytes.sum() == sum(
        x["bytes"] for x in jsonlines.read(folder / "ledger.jsonl")
    )
    lost = run.users.set_index(["arm", "user"]).loc[("cdcda", "user-003")]
    assert (lost.failed, lost.queries) == (1, 0)
    assert pd.isna(lost.rouge1)
    assert dict(zip(run.config.key, run.config.value, strict=True))["task.name"] == "lamp_4"


def test_comparisons_are_the_reports_own(run, make_run):
    other = load_run(make_run("second", users=5, seed=1))
    pooled = summarise([run.run, other.run])
    found = compare([run, other], "cdcda", "direct_ft").set_index("metric").loc["rouge1"]
    stated = pooled.arm("cdcda").differences["direct_ft"]["rouge1"]
    assert (found.value, found.low, found.high, found.p) == pytest.approx(
        (stated.value, stated.low, stated.high, stated.p)
    )
    assert (
        compare([run], "direct_ft", "cdcda").value[0]
        == -compare([run], "cdcda", "direct_ft").value[0]
    )
    table = scores([run, other]).set_index(["arm", "metric"])
    assert table.loc[("device", "rouge1"), "value"] == pooled.arm("device").metrics["rouge1"].value


def test_what_cannot_be_compared_is_refused(run, tmp_path):
    with pytest.raises(ConfigError, match=r"cdcad: no such arm. Did you mean 'cdcda'\?"):
        compare([run], "cdcad", "device")
    with pytest.raises(RunError, match="no such run"):
        load_run(tmp_path / "nowhere")


def test_nothing_is_read_twice(run, monkeypatch):
    assert run.users is run.users
    assert read_run(run.run.folder).registry == run.run.registry


def test_a_run_without_answers_has_frames_with_columns(make_run):
    folder = make_run(users=2)
    (folder / "answers.jsonl").unlink()
    assert list(scores(load_run(folder)).arm) == []


def test_one_run_needs_no_list_and_one_user_gives_numbers_alone(make_run):
    run = load_run(make_run(users=1))
    found = compare(run, "cdcda", "direct_ft")
    assert found.low.isna().all()
    assert found[["low", "p", "adjusted_p", "required_sample_size"]].dtypes.eq("float64").all()
    assert repr(run).startswith("RunFrames(a-run, lamp_4, device")


def test_wrong_pairs_of_arms_and_runs_are_named(make_run):
    run = load_run(make_run(users=2))
    with pytest.raises(ConfigError, match="expected two different arms"):
        compare(run, "cdcda", "cdcda")
    with pytest.raises(RunError, match="differ in task"):
        scores([run, load_run(make_run("b", task="lamp_2", users=2))])


def test_without_a_name_the_newest_run_is_meant(make_run, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match=r"no run in .*make one"):
        load_run()
    older, newer = make_run("b", users=1), make_run("sweep/a", users=1)
    for seconds, folder in enumerate((older, newer), start=1):
        os.utime(folder / "config.json", (seconds, seconds))
    assert load_run().run.folder.name == newer.name
