"""The YAML groups beside this file, read from the tree: a new preset is a new file, nothing else.

A plugin brings its presets by :func:`add_preset`.

``conf/privacy/mixed.yaml`` is the name ``mixed`` of the group ``privacy``. Everything is found
through ``__file__``, so a copied tree reads its own files.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hydra.core.config_store import ConfigStore

FOLDER = Path(__file__).resolve().parent
PRIMARY = "config"
ADDED: dict[str, dict[str, str]] = {}  # group -> name -> what it is


def groups() -> dict[str, tuple[str, ...]]:
    """Return every group with its names, both sorted."""
    return {folder.name: names for folder in sorted(FOLDER.iterdir()) if (names := _names(folder))}


def add_preset(group: str, name: str, values: Mapping[str, object], about: str) -> None:
    """Add the preset ``group=name`` to a group that has a folder here.

    Args:
        group: The group.
        name: Name of the preset.
        values: What stands in it.
        about: Its one-line description.
    """
    ConfigStore.instance().store(group=group, name=name, node=dict(values))
    ADDED.setdefault(group, {})[name] = about


def _names(folder: Path) -> tuple[str, ...]:
    if not folder.is_dir():
        return ()
    names = {path.stem for path in folder.glob("*.yaml")}
    return tuple(sorted(names | ADDED.get(folder.name, {}).keys()))


def headline(group: str, name: str) -> str:
    """Return the first comment line of a preset, its one-line description; '' where it has none.

    Hydra's own ``# @package`` header is passed over.
    """
    if name in ADDED.get(group, {}):
        return ADDED[group][name]
    text = (FOLDER / group / f"{name}.yaml").read_text(encoding="utf-8")
    for line in text.splitlines():
        if line.startswith("# ") and not line.startswith("# @"):
            return line[2:]
    return ""
