"""Atomic writes: a reader sees the old content or the new one, never a half-written file.

Everything is written beside its final place, flushed to the disk, then renamed. A folder counts as
complete only when its marker file stands in it; the marker is the last thing written.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any

from storage.hashing import hash_folder
from storage.writing import writing

MARKER = "COMPLETE.json"
CONTENT = "content_hash"


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` atomically; missing parent folders are made.

    Raises:
        RunError: If the disk is full or read-only.
    """
    with writing(path):
        _write(path, content)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{token_hex(4)}")
    try:
        with temporary.open("xb") as file:  # not mkstemp: its files ignore the user's umask
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, content: str) -> None:
    """Write ``content`` to ``path`` as UTF-8, atomically."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON with sorted keys, atomically."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path that becomes ``path`` when the block ends well.

    Missing parent folders are made; when the block raises, nothing is left behind.

    Raises:
        RunError: If the disk is full or read-only.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{token_hex(4)}")
    with writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path, marker: dict[str, Any] | None = None) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``path`` when the block ends well.

    The marker file is written last; then the folder is renamed. An existing ``path`` is replaced.
    When the block raises, nothing is left behind. A second process that finished the same folder
    first wins, and ours is dropped.

    Raises:
        RunError: If the disk is full or read-only.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{token_hex(4)}")
    with writing(path):
        try:
            temporary.mkdir(parents=True)
            yield temporary
            content = hash_folder(temporary, but=MARKER)
            write_json(temporary / MARKER, {**(marker or {}), CONTENT: content})
            _replace_folder(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _replace_folder(temporary: Path, path: Path) -> None:
    old = path.with_name(f".{path.name}.old-{os.getpid()}")
    if path.exists():
        os.replace(path, old)
    try:
        os.replace(temporary, path)
    except OSError:  # another process put its own folder there between the two renames
        if not is_complete(path):
            raise
    shutil.rmtree(old, ignore_errors=True)


def is_complete(folder: Path) -> bool:
    """Whether ``folder`` was finished by :func:`new_folder`."""
    return (folder / MARKER).is_file()


def is_whole(folder: Path) -> bool:
    """Whether ``folder`` is complete and holds what was written: no byte is missing or flipped."""
    try:
        marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        # folders of an earlier version have no hash to be held against
        return CONTENT not in marker or marker[CONTENT] == hash_folder(folder, but=MARKER)
    except (OSError, ValueError, TypeError):
        return False
