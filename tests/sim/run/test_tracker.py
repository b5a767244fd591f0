"""Trackers: TensorBoard really writes, a missing one is refused, none costs nothing."""

from __future__ import annotations

import importlib.util
import sys
import types

import pytest

from conf.errors import ConfigError
from sim.run import tracker


def test_no_tracker_reads_nothing(tmp_path):
    with tracker.track_arms((), tmp_path / "no-such-run") as arm_done:
        arm_done("device")
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_gets_every_arm(make_run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = make_run(users=2, methods=("device", "direct_ft"))
    with tracker.track_arms(("tensorboard",), folder) as arm_done:
        arm_done("device")
        arm_done("direct_ft")
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    (scalar,) = events.Scalars("direct_ft/rouge1")
    assert scalar.step == 2
    assert 0 < scalar.value < 1
    assert "device/seconds/answer" in events.Tags()["scalars"]


def test_missing_package_is_refused_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match="wandb is not installed; run 'pip install wandb'"):
        tracker.open_trackers(("wandb",), tmp_path)


def test_missing_package_is_refused_before_a_run(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match="trackers: wandb is not installed"):
        tracker.check_installed(("wandb",))


def test_wandb_is_called_as_its_manual_says(tmp_path, monkeypatch):
    calls = []

    class Run:
        def log(self, metrics, step):
            calls.append((metrics, step))

        def finish(self):
            calls.append("finish")

    fake = types.ModuleType("wandb")
    fake.init = lambda **settings: calls.append(settings) or Run()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    opened = tracker.open_trackers(("wandb",), tmp_path / "a-run")
    opened.log(1, {"cdcda/rouge1": 0.3})
    opened.close()
    assert calls[0]["name"] == "a-run"
    assert calls[1:] == [({"cdcda/rouge1": 0.3}, 1), "finish"]
