"""The public users as the server holds them: a file of histories, named by what it holds."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from conf.errors import DataError
from lamp.records import UserHistory
from lamp.serialise import history_from_json, history_to_json
from storage import atomic
from storage.hashing import hash_bytes


@dataclass(frozen=True, slots=True)
class PublicUsers:
    """Where the public users' histories lie.

    Attributes:
        path: JSON-lines file, one user each.
        content_hash: Hash of the file; part of the base model's cache key.
    """

    path: Path
    content_hash: str


def write(folder: Path, users: Iterable[UserHistory]) -> PublicUsers:
    """Write ``users`` below ``folder``, once for each content."""
    lines = [json.dumps(history_to_json(user), sort_keys=True) + "\n" for user in users]
    content = "".join(lines).encode("utf-8", "replace")
    digest = hash_bytes(content)
    path = folder / f"{digest}.jsonl"
    if not path.is_file():
        atomic.write_bytes(path, content)
    return PublicUsers(path=path, content_hash=digest)


def read(public: PublicUsers) -> tuple[UserHistory, ...]:
    """Read the public users back.

    Raises:
        DataError: If the file is missing or its content changed.
    """
    try:
        content = public.path.read_bytes()
    except OSError as error:
        raise DataError(f"{public.path.name}: {error.strerror}; set the run up again") from error
    if hash_bytes(content) != public.content_hash:
        raise DataError(f"{public.path.name}: its content changed; delete it and set up again")
    return tuple(history_from_json(json.loads(line)) for line in content.splitlines())
