"""The YAML groups beside this file, read from the tree: a new preset is a new file, nothing else.

A plugin brings its presets by :func:`add_preset`.

``conf/privacy/mixed.yaml`` is the name ``mixed`` of the group ``privacy``. Everything is found
through ``__file__``, so a copied tree reads its own files.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hydra.core.config_store import ConfigStore

from conf.errors import ConfigError

FOLDER = Path(__file__).resolve().parent
PRIMARY = "config"
ADDED: dict[str, dict[str, str]] = {}  # group -> name -> what it is
_additions: list[str] = []  # names in the order of their add_preset


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
    _additions.append(name)


def version() -> tuple[object, ...]:
    """Return what differs as soon as a preset's file was written or a preset was added."""
    files = sorted(FOLDER.glob("**/*.yaml"))
    return (len(_additions), *((str(file), file.stat().st_mtime_ns) for file in files))


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
    for line in preset_text(group, name).splitlines():
        if line.startswith("# ") and not line.startswith("# @"):
            return line[2:]
    return ""


def preset_text(group: str, name: str) -> str:
    """Return the text of a preset's file, in the one encoding that Hydra reads.

    Raises:
        ConfigError: If it is no UTF-8, or begins with a byte order mark, behind which Hydra does
            not find its header.
    """
    content = (FOLDER / group / f"{name}.yaml").read_bytes()
    try:
        text = content.decode("utf-8")
        wrong = 0 if text.startswith("\ufeff") else None
    except UnicodeDecodeError as error:
        wrong = error.start
    if wrong is not None:
        line = content.count(b"\n", 0, wrong) + 1
        raise ConfigError(
            f"conf/{group}/{name}.yaml, line {line}, byte {wrong + 1}: expected UTF-8 without a "
            f"byte order mark, got 0x{content[wrong]:02x}; save the file so"
        )
    return text
