"""What a checkpoint's files say, read without loading a deep-learning library."""

from __future__ import annotations

import json
from pathlib import Path

from storage.atomic import MARKER
from storage.hashing import hash_files, hash_json

# weights, settings, tokenizer and chat template: all that shapes what a model does
SHAPING = ("*.safetensors", "*.bin", "*.json", "*.jinja", "*.txt", "*.model")


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
    width = settings_of(Path(path)).get("hidden_size")
    if isinstance(width, int):
        return width
    from models.loading import config_of  # seconds

    return int(config_of(path, revision).hidden_size)


def model_identity(path: str, revision: str | None) -> str:
    """Return what names a model in cache keys: a local folder's content, else name and revision."""
    folder = Path(path)
    if folder.is_dir():
        found = {file for pattern in SHAPING for file in folder.glob(pattern)}
        return hash_files(file for file in found if file.name != MARKER)
    return hash_json({"hub": path, "revision": revision})


def is_classifier(path: str) -> bool | None:
    """Whether a local checkpoint brings a head that classifies; None for a name on the hub."""
    folder = Path(path)
    if not folder.is_dir():
        return None
    architectures = settings_of(folder).get("architectures")
    return isinstance(architectures, list) and any(
        str(name).endswith("ForSequenceClassification") for name in architectures
    )


def settings_of(folder: Path) -> dict[str, object]:
    """Return what a local checkpoint's config.json says; nothing where there is none."""
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
