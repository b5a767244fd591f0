"""The table of device kinds: who has what, and what it would take there."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from conf.compose import compose
from sim.profiles import draw_profiles
from sim.report.device_tables import devices_table
from sim.report.report import write_report
from sim.report.run_records import read_run

pytestmark = pytest.mark.usefixtures("undrawn")

MIXED = compose(["devices=mixed"]).devices
USERS = [f"user-{number:03d}" for number in range(20)]


def cells(run):
    return [[cell.text for cell in row] for row in devices_table(run).rows]


def test_profiles_are_dealt_by_their_shares_from_the_seed():
    dealt = draw_profiles(USERS, MIXED, seed=0)
    assert Counter(each.name for each in dealt.values()) == {
        "old phone": 6,
        "new phone": 10,
        "laptop": 4,
    }
    assert dealt == draw_profiles(USERS[::-1], MIXED, seed=0)
    assert dealt != draw_profiles(USERS, MIXED, seed=1)


def test_devices_that_are_alike_need_no_table(make_run):
    assert devices_table(read_run(make_run())) is None


def test_slower_devices_take_longer_and_failures_are_told_by_kind(make_run):
    old = next(u for u, p in draw_profiles(USERS, MIXED, 0).items() if p.name == "old phone")
    run = read_run(make_run(devices=MIXED, missing={"cdcda": (old,)}))
    rows = {(row[0], row[1]): row for row in cells(run)}
    assert len(rows) == len(run.arms) * len(MIXED.profiles)
    assert [rows["cdcda", kind.name][2] for kind in MIXED.profiles] == ["6", "10", "4"]
    assert [rows["cdcda", kind.name][3] for kind in MIXED.profiles] == ["1", "0", "0"]
    laptop = replace(MIXED.profiles[2], speed=MIXED.profiles[0].speed)
    slow = replace(run.config, devices=replace(MIXED, profiles=(*MIXED.profiles[:2], laptop)))
    assert cells(replace(run, config=slow)) != cells(run)


def test_the_report_has_the_table(make_run):
    folder = make_run(devices=MIXED)
    write_report([folder])
    assert "## Kinds of devices" in (folder / "report.md").read_text()
