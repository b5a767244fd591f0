"""What a device is told of the configuration, and how it reads it back."""

from __future__ import annotations

import pytest

from conf.compose import compose
from conf.errors import ProtocolError
from protocol.settings import settings_from_json, settings_of, settings_to_json


def test_settings_come_back_from_json():
    settings = settings_of(compose(["task=lamp_4", "resources=gpu"]))
    assert settings_from_json(settings_to_json(settings)) == settings


def test_an_unknown_key_is_refused():
    text = settings_to_json(settings_of(compose(["task=lamp_4", "resources=gpu"])))
    with pytest.raises(ProtocolError, match="expected DeviceSettings"):
        settings_from_json(text.replace('"gpu_share"', '"ratio"'))


def test_a_whole_gpu_is_not_written():
    settings = settings_of(compose(["task=lamp_4"]))
    assert "gpu_share" not in settings_to_json(settings)
    assert settings_from_json(settings_to_json(settings)).gpu_share == 1.0


@pytest.mark.parametrize(
    ("words", "share"),
    [
        ([], 1.0),
        (["resources=gpu"], 0.5),
        (["resources=gpu", "resources.num_gpus=2", "resources.client_gpus=2"], 1.0),
        (["resources=gpu", "resources.backend=inline"], 1.0),
    ],
)
def test_devices_side_by_side_have_a_part_of_the_gpu(words, share):
    assert settings_of(compose(words)).gpu_share == share
