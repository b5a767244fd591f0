"""The public users as the server holds them: a file of histories, named by what it holds.

Some of their records may be sent to devices (:class:`RecordPool`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from conf.errors import DataError
from conf.seeds import derive_seed
from lamp.records import Pair, UserHistory
from lamp.serialise import history_from_json, history_to_json
from storage import atomic
from storage.hashing import hash_bytes, hash_json


@dataclass(frozen=True, slots=True)
class PublicUsers:
    """Where the public users' histories lie.

    Attributes:
        path: JSON-lines file, one user each.
        content_hash: Hash of the file; part of the base model's cache key.
    """

    path: Path
    content_hash: str


@dataclass(frozen=True, slots=True)
class RecordPool:
    """Public records that every device gets.

    Attributes:
        records: The records; their ids say nothing of whose they are.
        content_hash: Hash of the records; "" where there are none.
    """

    records: tuple[Pair, ...] = ()
    content_hash: str = ""


NO_RECORDS = RecordPool()


def pool(users: Iterable[UserHistory], number: int, seed: int) -> RecordPool:
    """Draw at most ``number`` records of ``users``, each text once."""
    texts = dict.fromkeys((pair.input, pair.response) for user in users for pair in user.pairs)
    drawn = list(texts)
    if len(drawn) > number:
        drawn = Random(derive_seed(seed, "public pool")).sample(drawn, number)
    records = tuple(Pair(f"public-{place}", *text) for place, text in enumerate(drawn))
    return RecordPool(records, hash_json(drawn) if drawn else "")


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
