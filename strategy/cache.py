"""What the cloud generated and scored, kept across runs: never computed twice for the same content.

One SQLite file, so that parallel jobs never see a half-written entry. A generation's key holds the
model, the prompt version, the sampling settings, the record's hash, the sample index and the seed,
never the share ratio. Users hold entries by their records: what a withdrawn record gave rise to is
deleted unless another user holds it too. A hold is written before its entry, so what nobody holds
belongs to no running job and can be pruned.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conf.errors import RunError
from storage.hashing import hash_bytes
from storage.writing import writing

logger = logging.getLogger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
  key TEXT PRIMARY KEY, value TEXT NOT NULL, check_sum TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS holders (
  key TEXT NOT NULL, user TEXT NOT NULL, record TEXT NOT NULL DEFAULT '', PRIMARY KEY (key, user)
);
CREATE INDEX IF NOT EXISTS holders_by_user ON holders (user);
"""
_UNKNOWN_RECORD = ""  # holds of an earlier version do not name the record
_DELETE_UNHELD = (
    "DELETE FROM entries WHERE key = ?1 AND NOT EXISTS (SELECT 1 FROM holders WHERE key = ?1)"
)
_LOCK_WAIT_S = 60.0
_BATCH = 500


@dataclass(frozen=True, slots=True)
class Pruned:
    """What pruning did.

    Attributes:
        unheld: Entries that no user held.
        damaged: Entries whose check sum did not fit.
        left: Entries that remain.
        freed_bytes: Disk space that was given back.
    """

    unheld: int
    damaged: int
    left: int
    freed_bytes: int


class Cache:
    """Entries by content key, each with the users that hold it."""

    def __init__(self, path: Path) -> None:
        """Open or make the cache file at ``path``."""
        self._path = path
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        _set_damaged_aside(path)
        with self._connect() as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.executescript(_SCHEMA)
            _name_records(connection)

    def get(self, keys: Iterable[str]) -> dict[str, Any]:
        """The values of those ``keys`` that are there and whole; a corrupt entry is left out."""
        found: dict[str, Any] = {}
        with self._connect() as connection:
            for batch in _batches(sorted(set(keys))):
                rows = connection.execute(
                    f"SELECT key, value, check_sum FROM entries WHERE key IN ({_marks(batch)})",
                    batch,
                )
                found.update(
                    (key, json.loads(value))
                    for key, value, check_sum in rows
                    if hash_bytes(value.encode()) == check_sum
                )
        return found

    def put(self, values: Mapping[str, Any]) -> None:
        """Write entries in one transaction."""
        rows = []
        for key, value in values.items():
            text = json.dumps(value, sort_keys=True)
            rows.append((key, text, hash_bytes(text.encode())))
        with self._connect() as connection:
            connection.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?, ?)", rows)

    def hold(self, user: str, keys_by_record: Mapping[str, Iterable[str]]) -> None:
        """Note that ``user``'s records, named by their hashes, give rise to these keys."""
        rows = [(key, user, record) for record, keys in keys_by_record.items() for key in keys]
        with self._connect() as connection:
            connection.executemany("INSERT OR REPLACE INTO holders VALUES (?, ?, ?)", rows)

    def release(self, user: str, records: Iterable[str]) -> int:
        """Drop ``user``'s holds through these records; delete what nobody holds any more.

        Returns:
            How many entries were deleted.
        """
        named = {*records, _UNKNOWN_RECORD}
        with self._connect() as connection:
            held = connection.execute("SELECT key, record FROM holders WHERE user = ?", (user,))
            gone = [(key,) for key, record in held.fetchall() if record in named]
            connection.executemany(
                "DELETE FROM holders WHERE key = ? AND user = ?", [(key, user) for (key,) in gone]
            )
            before = connection.total_changes
            connection.executemany(_DELETE_UNHELD, gone)
            deleted = connection.total_changes - before
        self._overwrite()
        return deleted

    def _overwrite(self) -> None:
        """Let no deleted byte stand in the file or in its log; others may be reading meanwhile."""
        with self._connect() as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def of_records(self, records: Iterable[str]) -> list[Any]:
        """The whole values that these records gave rise to, replies and scores."""
        with self._connect() as connection:
            keys = [
                key
                for batch in _batches(sorted(set(records)))
                for (key,) in connection.execute(
                    f"SELECT DISTINCT key FROM holders WHERE record IN ({_marks(batch)})", batch
                )
            ]
        found = self.get(keys)
        return [found[key] for key in sorted(found)]

    def prune(self) -> Pruned:
        """Delete what nobody holds and what is damaged, and give the space back."""
        with self._connect() as connection:
            unheld = connection.execute(
                "SELECT key FROM entries WHERE key NOT IN (SELECT key FROM holders)"
            ).fetchall()
            connection.executemany(_DELETE_UNHELD, unheld)
            rows = connection.execute("SELECT key, value, check_sum FROM entries")
            damaged = [
                (key,) for key, value, check_sum in rows if hash_bytes(value.encode()) != check_sum
            ]
            connection.executemany("DELETE FROM entries WHERE key = ?", damaged)
            left = connection.execute("SELECT COUNT(*) FROM entries").fetchone()[0]
        before = self._path.stat().st_size
        with closing(sqlite3.connect(self._path, timeout=_LOCK_WAIT_S)) as connection:
            connection.execute("VACUUM")  # never inside a transaction
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        freed = max(0, before - self._path.stat().st_size)
        return Pruned(len(unheld), len(damaged), int(left), freed)

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        try:
            with _open(self._path) as connection, connection:
                yield connection
        except sqlite3.Error as error:
            raise RunError(
                f"{self._path.name}: the cache cannot be used ({error}); make room, make it "
                "writable, or delete it"
            ) from error


def _open(path: Path) -> closing[sqlite3.Connection]:
    connection = sqlite3.connect(path, timeout=_LOCK_WAIT_S)
    connection.execute("PRAGMA secure_delete=ON")  # what is deleted is overwritten with zeros
    return closing(connection)


def _set_damaged_aside(path: Path) -> None:
    """Put a file that is no whole database beside its place; what it held is computed again.

    Bytes that were flipped inside a value are found by the value's own hash when it is read.
    """
    if not path.is_file() or _is_database(path):
        return
    logger.warning("%s was damaged and is set aside; its entries are computed again", path.name)
    for part in (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm"))):
        if part.is_file():
            part.replace(part.with_name(f"{part.name}.damaged"))


def _is_database(path: Path) -> bool:
    try:
        with _open(path) as connection:
            return bool(connection.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok")
    except sqlite3.OperationalError:
        return True  # locked or read-only: that is told when it is used
    except sqlite3.DatabaseError:
        return False


def _batches(keys: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(keys), _BATCH):
        yield list(keys[start : start + _BATCH])


def _marks(batch: Sequence[str]) -> str:
    return ",".join("?" * len(batch))


def _name_records(connection: sqlite3.Connection) -> None:
    """Give the holds of an earlier version their column; their records stay unknown."""
    columns = {row[1] for row in connection.execute("PRAGMA table_info(holders)")}
    if "record" not in columns:
        connection.execute("ALTER TABLE holders ADD COLUMN record TEXT NOT NULL DEFAULT ''")
    connection.execute("CREATE INDEX IF NOT EXISTS holders_by_record ON holders (record)")
