"""A folder as one file that travels: the same folder always gives the same bytes.

A bundle is a plain tar of the folder's top-level files, sorted, without owners or times. Whoever
opens one takes nothing but plain names with a harmless ending: a bundle may come from a server.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from pathlib import Path

from conf.errors import DataError
from storage.atomic import MARKER
from storage.writing import writing

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}\.(json|jinja|model|safetensors|txt)")
_CHUNK_BYTES = 1 << 20


def pack(folder: Path, target: Path) -> str:
    """Write the files of ``folder`` to ``target``, all but the marker of completeness.

    Returns:
        The SHA-256 of ``target``.

    Raises:
        DataError: If a file could not be unpacked again.
    """
    with writing(target), tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted(folder.iterdir()):
            if path.name == MARKER:
                continue
            _require_plain(path.name, path.is_file())
            entry = tarfile.TarInfo(path.name)
            entry.size = path.stat().st_size
            with path.open("rb") as file:
                tar.addfile(entry, file)
    return digest_of(target)


def unpack(bundle: Path, folder: Path) -> None:
    """Write the files of ``bundle`` into ``folder``, which exists.

    Raises:
        DataError: If it is no bundle, or holds anything but plain files with plain names.
    """
    try:
        with tarfile.open(bundle, "r:") as tar:
            entries = tar.getmembers()
            for entry in entries:
                _require_plain(entry.name, entry.isreg() and not entry.issparse())
            if sum(entry.size for entry in entries) > bundle.stat().st_size:
                raise DataError("bundle: expected files no larger than the bundle; get it again")
            tar.extractall(folder, members=entries, filter="data")
    except tarfile.TarError as error:
        raise DataError(f"bundle: expected a plain tar, got {type(error).__name__}") from error


def digest_of(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _require_plain(name: str, is_file: bool) -> None:
    if not is_file or not _PLAIN_NAME.fullmatch(name):
        raise DataError(
            f"bundle: expected plain files such as model.safetensors, got {name[:60]!r}; "
            "a model folder holds weights, JSON and texts only"
        )
