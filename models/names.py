"""What a model path can be, told without loading a deep-learning library."""

from __future__ import annotations

from pathlib import Path

from conf.errors import ModelError

LOOK_AGAIN = "check model.*.path, or download or build the model again"


def local_or_hub(path: str | Path) -> str:
    """Return ``path`` if it is a model folder or can be a hub name.

    Raises:
        ModelError: If it names a local folder that is missing or holds no model.
    """
    name = str(path)
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not any(folder.glob("*config.json")):
            raise unusable(name, "a folder in Hugging Face layout", "no config.json in it")
        return str(folder)
    if name == "built":
        raise ModelError("model path 'built': expected a folder, got a model that is not built yet")
    if isinstance(path, Path) or name[:1] in "/.~" or name.count("/") != 1 or ":" in name:
        raise unusable(name, "a folder in Hugging Face layout", "no such folder")
    return name


def unusable(source: str, expected: str, got: str, remedy: str = LOOK_AGAIN) -> ModelError:
    """Return the error of a checkpoint that cannot be used."""
    return ModelError(f"model {source}: expected {expected}, got {got}; {remedy}")
