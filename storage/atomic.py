"""Atomic writes: a reader sees the old content or the new one, never a half-written file.

Everything is written beside its final place, flushed to the disk, then renamed, and the folder that
holds it is flushed too. A folder counts as complete only when its marker file stands in it; the
marker is the last thing written.

What lies in a folder that its owner alone may enter is its owner's alone (0600 and 0700), whatever
the umask: so one private folder keeps all that is put there later private.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
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
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{token_hex(4)}")
    try:
        with open(temporary, "xb", opener=opener(path.parent)) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        flush_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def make_folder(path: Path, *, private: bool = False) -> None:
    """Make a folder and its missing parents; private ones, and those in private ones, are 0700."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(mode=0o777 if is_open(path.parent) and not private else 0o700, exist_ok=True)
    if private:
        path.chmod(0o700)


def is_open(folder: Path) -> bool:
    """Whether anybody but its owner may enter or list ``folder``."""
    return bool(folder.stat().st_mode & 0o077)


def file_mode(folder: Path) -> int:
    """Mode of a new file in ``folder``, before the umask."""
    return 0o666 if is_open(folder) else 0o600


def opener(folder: Path) -> Callable[[str, int], int]:
    """For :func:`open`: a new file in ``folder`` is as private as the folder."""
    mode = file_mode(folder)
    return lambda path, flags: os.open(path, flags, mode)


def flush_folder(folder: Path) -> None:
    """Flush the names in ``folder``, so that a rename survives a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
            make_folder(path.parent)
            yield temporary
            if not is_open(path.parent):
                temporary.chmod(0o600)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
            flush_folder(path.parent)
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
            make_folder(temporary)
            yield temporary
            _settle(temporary)
            content = hash_folder(temporary, but=MARKER)
            write_json(temporary / MARKER, {**(marker or {}), CONTENT: content})
            _replace_folder(temporary, path)
            flush_folder(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _settle(folder: Path) -> None:
    """Flush what libraries wrote into ``folder``, and make it as private as the folder is."""
    private = not is_open(folder)
    for path in sorted(folder.rglob("*")):
        if private:
            path.chmod(0o700 if path.is_dir() else 0o600)
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        elif path.is_dir():
            flush_folder(path)


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
