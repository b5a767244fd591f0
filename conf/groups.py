"""The YAML groups beside this file, read from the tree: a new preset is a new file, nothing else.

``conf/privacy/mixed.yaml`` is the name ``mixed`` of the group ``privacy``. Everything is found
through ``__file__``, so a copied tree reads its own files.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).resolve().parent
PRIMARY = "config"


def groups() -> dict[str, tuple[str, ...]]:
    """Return every group with its names, both sorted."""
    return {folder.name: names for folder in sorted(FOLDER.iterdir()) if (names := _names(folder))}


def _names(folder: Path) -> tuple[str, ...]:
    if not folder.is_dir():
        return ()
    return tuple(sorted(path.stem for path in folder.glob("*.yaml")))


def headline(group: str, name: str) -> str:
    """Return the first comment line of a preset, its one-line description; '' where it has none.

    Hydra's own ``# @package`` header is passed over.
    """
    text = (FOLDER / group / f"{name}.yaml").read_text(encoding="utf-8")
    for line in text.splitlines():
        if line.startswith("# ") and not line.startswith("# @"):
            return line[2:]
    return ""
