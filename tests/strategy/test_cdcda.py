"""The strategy as a stranger meets it: what it needs and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from conf.errors import ConfigError
from conf.schema import EvaluationConfig, FiltersConfig, QLoraConfig, TaskConfig
from protocol.settings import DeviceSettings
from strategy import CdcdaPlm
from strategy.arms import make_arms
from strategy.base_model import BaseModels
from strategy.registry import Fleet
from strategy.run_log import RunLog

ROOT = Path(__file__).resolve().parents[2]


def make(tmp_path: Path, method: str) -> CdcdaPlm:
    return CdcdaPlm(
        make_arms([method], None),
        settings=DeviceSettings(
            task=TaskConfig(name="lamp_4", max_new_tokens=4),
            qlora=QLoraConfig(),
            evaluation=EvaluationConfig(),
        ),
        bases=BaseModels(),
        augmenter=None,
        filters=FiltersConfig(),
        fleet=Fleet(users=1),
        log=RunLog(tmp_path),
    )


def test_an_oracle_without_histories_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cloud reads every history"):
        make(tmp_path, "cloud")


def test_distillation_without_a_teacher_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="rkd_ft learns from a teacher, got none"):
        make(tmp_path, "rkd_ft")


def test_the_class_comes_from_the_package_and_loads_no_network_library():
    code = (
        "import sys, strategy; assert 'flwr' not in sys.modules\n"
        "from strategy import CdcdaPlm\n"
        "assert 'torch' not in sys.modules and CdcdaPlm.__module__ == 'strategy.cdcda'\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
