"""What a checkpoint's config.json says, read without loading a deep-learning library."""

from __future__ import annotations

import json
from pathlib import Path


def hidden_size(path: str | Path, revision: str | None = None) -> int:
    """Return the width of a checkpoint's network.

    A local folder in Hugging Face layout takes a millisecond; what lies elsewhere, or names its
    width otherwise, is left to transformers.

    Args:
        path: Folder, or name on the hub.
        revision: Of the latter.

    Raises:
        ModelError: If there is no such checkpoint.
    """
    width = _local(Path(path)).get("hidden_size")
    if isinstance(width, int):
        return width
    from models.loading import config_of  # seconds

    return int(config_of(path, revision).hidden_size)


def _local(folder: Path) -> dict[str, object]:
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
