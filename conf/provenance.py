"""Where the settings of training come from: a preset, by its name and first line, or by hand.

A preset that ``python -m sim tune`` wrote says in its first line on whom it was tuned; one of
guessed values says whose they are.
"""

from __future__ import annotations

from dataclasses import asdict

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
    """Say which preset of ``qlora`` has the same learning rates, epochs and batch sizes.

    Of several the one that is the most like it.
    """
    given, found = asdict(qlora), []
    for name in groups()["qlora"]:
        text = (FOLDER / "qlora" / f"{name}.yaml").read_text(encoding="utf-8")
        preset = asdict(QLoraConfig(**(yaml.safe_load(text) or {})))
        if all(given[key] == preset[key] for key in TUNED):
            found.append((sum(given[key] != value for key, value in preset.items()), name))
    if not found:
        return BY_HAND
    _, name = min(found)
    return f"qlora={name}: {headline('qlora', name)}"
