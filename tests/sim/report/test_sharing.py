"""Scores by group: who is in it, what they shared, and a picture where there are ratios."""

from __future__ import annotations

import csv

import pytest

from conf.schema import BaselinesConfig, ThresholdsConfig
from sim.report.charts import sharing_figure
from sim.report.pictures import save
from sim.report.pooling import summarise
from sim.report.report import write_report
from sim.report.run_records import read_run
from sim.report.sharing import EVERYONE, groups, shares, sharing_table

RATIOS = (0.0, 0.5, 1.0)
METHODS = ("direct_ft", "cdcda")


def grouped(make_run, name: str = "grouped", **settings):
    """Twelve users: the first six guarded, the others open."""
    folder = make_run(name, users=12, methods=METHODS, ratios=RATIOS, **settings)
    rows = list(csv.DictReader((folder / "policies.csv").read_text().splitlines()))
    with (folder / "policies.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("user_id", "ratio", "group"))
        for number, row in enumerate(rows):
            group = "guarded" if number < 6 else "open"
            writer.writerow((row["user_id"], row["ratio"], group))
    return folder


def test_every_group_and_everyone_stand_at_every_ratio(make_run):
    run = read_run(grouped(make_run))
    assert {name: len(users) for name, users in groups(run).items()} == {
        "guarded": 6,
        "open": 6,
        EVERYONE: 12,
    }
    found = shares(run, summarise([run]).resampling)
    assert [(share.arm.ratio, share.group) for share in found] == [
        (ratio, group) for ratio in RATIOS for group in ("guarded", "open", EVERYONE)
    ]


def test_records_shared_are_the_groups_means(make_run):
    run = read_run(grouped(make_run))
    found = {(s.arm.ratio, s.group): s for s in shares(run, summarise([run]).resampling)}
    for group, users in groups(run).items():
        lines = [run.augmentations["cdcda@0.5", user] for user in users]
        mean = sum(line.shared for line in lines) / len(users)
        assert found[0.5, group].records == mean
        assert abs(found[0.5, group].part - mean / 30) < 1e-12
        assert found[0.0, group].records == 0


def test_the_gain_is_paired_with_the_same_users(make_run):
    run = read_run(grouped(make_run))
    found = {(s.arm.ratio, s.group): s for s in shares(run, summarise([run]).resampling)}
    gain = found[1.0, "open"].gain
    assert gain is not None
    assert gain.users == 6
    assert gain.low < gain.value < gain.high


def test_a_run_of_one_group_has_no_line_for_everyone(make_run):
    run = read_run(make_run(users=4, methods=METHODS, ratios=RATIOS))
    assert list(groups(run)) == ["open"]


def test_the_picture_needs_two_ratios(make_run, tmp_path):
    results = summarise([read_run(grouped(make_run))])
    figure = sharing_figure(results)
    first = save(figure.spec, tmp_path / "a.png").read_bytes()
    assert first.startswith(b"\x89PNG")
    single = summarise([read_run(make_run("single", users=4, methods=METHODS))])
    assert sharing_figure(single) is None
    assert sharing_table(single) is not None


def test_nothing_is_shown_where_nobody_shares(make_run):
    assert sharing_table(summarise([read_run(make_run(users=4, methods=("direct_ft",)))])) is None


def epsilons(results, method):
    """Places of one method's line in the last panel, whose axis is epsilon."""
    spec = sharing_figure(results).spec
    line = spec["concat"][-1]["layer"][-1]
    assert line["encoding"]["x"]["title"].startswith("epsilon")
    rows = spec["datasets"][line["data"]["name"]]
    return [row["x"] for row in rows if row["line"] == method]


def test_adapters_under_dp_sgd_get_a_panel_of_their_own(make_run):
    folder = make_run(
        users=6, methods=(*METHODS, "direct_ft_dp"), ratios=RATIOS,
        baselines=BaselinesConfig(dp_epsilons=(1.0, 8.0)),
    )  # fmt: skip
    assert epsilons(summarise([read_run(folder)]), "direct_ft_dp") == [1.0, 8.0]


def test_an_epsilon_beside_thresholds_of_an_arm_is_read_right(make_run):
    folder = make_run(
        users=3, methods=(*METHODS, "cdcda_dp"), ratios=RATIOS,
        baselines=BaselinesConfig(dp_epsilons=(1.0, 8.0)),
        thresholds=(ThresholdsConfig(eps_scf=0.5), ThresholdsConfig(eps_scf=0.9)),
    )  # fmt: skip
    assert set(epsilons(summarise([read_run(folder)]), "cdcda_dp")) == {1.0, 8.0}


@pytest.mark.usefixtures("undrawn")
def test_the_report_has_its_section(make_run):
    folder = grouped(make_run)
    write_report([folder])
    text = (folder / "report.md").read_text()
    assert "## What sharing brings" in text
    assert "plots/sharing.png" in text
    assert (folder / "plots" / "sharing.png").exists()
