"""Where the settings of training come from: a preset, by its name and first line, or by hand.

A preset that ``python -m sim tune`` wrote says in its first line on whom it was tuned; one of
guessed values says whose they are.
"""

from __future__ import annotations

import yaml

from conf.groups import FOLDER, groups, headline
from conf.schema import QLoraConfig

TUNED = tuple(
    f"{prefix}{name}"
    for prefix in ("", "base_", "cloud_")
    for name in ("learning_rate", "epochs", "batch_size")
)
BY_HAND = "learning rates, epochs or batch sizes are no preset's: set by hand or by an experiment"


def source_of(qlora: QLoraConfig) -> str:
    """Say which preset of ``qlora`` has the same learning rates, epochs and batch sizes."""
    given = [getattr(qlora, key) for key in TUNED]
    for name in groups()["qlora"]:
        text = (FOLDER / "qlora" / f"{name}.yaml").read_text(encoding="utf-8")
        preset = QLoraConfig(**(yaml.safe_load(text) or {}))
        if given == [getattr(preset, key) for key in TUNED]:
            return f"qlora={name}: {headline('qlora', name)}"
    return BY_HAND
