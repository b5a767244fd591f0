"""Content hashes: entries and messages are named by what they hold, never by when."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

CHUNK_BYTES = 1 << 20


def hash_json(value: Any) -> str:
    """Hash a JSON value; key order does not count. Returns 32 hex digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.blake2b(text.encode("ascii"), digest_size=16).hexdigest()


def hash_bytes(content: bytes) -> str:
    """Hash raw bytes. Returns 32 hex digits."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def hash_folder(folder: Path, but: str) -> str:
    """Hash names and contents of all files below ``folder`` but those named ``but``."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != but:
            name = str(path.relative_to(folder))
            digest.update(f"{name}\0{hash_files([path])}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def hash_files(paths: Iterable[Path]) -> str:
    """Hash the names and contents of ``paths`` in sorted order. Returns 32 hex digits."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(paths):
        digest.update(path.name.encode() + b"\0")
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()
