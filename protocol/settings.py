"""What a device must know to train and answer like every other, as JSON.

The settings travel in every adapt and answer message. The consent policy is not among them: it
lives in the user's own folder, so nothing that the server sends can widen it.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import lru_cache
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from conf.errors import ProtocolError
from conf.schema import STRICT, Config, EvaluationConfig, QLoraConfig, ResourcesConfig, TaskConfig


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DeviceSettings:
    """The part of the configuration that a device works by.

    Attributes:
        task: Task and answer length.
        qlora: Hyperparameters of the adapter.
        evaluation: How queries are answered and what of it is disclosed.
        system_prompt: System turn of the device model; None leaves it to the chat template.
        torch_threads: Threads of the device's process.
        gpu_share: Part of a GPU's memory that the device's process may count on.
    """

    task: TaskConfig
    qlora: QLoraConfig
    evaluation: EvaluationConfig
    system_prompt: str | None = None
    torch_threads: int = 1
    gpu_share: float = 1.0


def settings_of(config: Config) -> DeviceSettings:
    """Pick the device's part of a run's configuration."""
    return DeviceSettings(
        task=config.task,
        qlora=config.qlora,
        evaluation=config.evaluation,
        system_prompt=config.model.device.system_prompt,
        torch_threads=config.resources.torch_threads,
        gpu_share=_gpu_share(config.resources),
    )


def _gpu_share(resources: ResourcesConfig) -> float:
    """Devices of one GPU side by side have a part of it each; one after the other, all of it."""
    beside = resources.backend == "ray" and 0 < resources.client_gpus < 1
    return resources.client_gpus if beside else 1.0


def settings_to_json(settings: DeviceSettings) -> str:
    """Write the settings as compact JSON with sorted keys.

    A whole GPU is what a device counts on unless it is told otherwise, so it is not written: the
    text names trainings, and those from before the key stay valid. How the cloud tunes its own
    model is no device's business.
    """
    given = asdict(settings)
    for key in [key for key in given["qlora"] if key.startswith("cloud_")]:
        del given["qlora"][key]
    if settings.gpu_share == 1.0:
        del given["gpu_share"]
    return json.dumps(given, sort_keys=True, separators=(",", ":"))


@lru_cache(maxsize=64)
def settings_from_json(text: str) -> DeviceSettings:
    """Read settings that came over the wire.

    Raises:
        ProtocolError: If the JSON is broken or a key is unknown, missing or out of bounds.
    """
    try:
        value: Any = json.loads(text)
        return _ADAPTER.validate_python(value)
    except (ValueError, ValidationError) as error:
        raise ProtocolError(f"settings: expected DeviceSettings as JSON, got {error}") from error


_ADAPTER = TypeAdapter(DeviceSettings)
