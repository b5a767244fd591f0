"""What the cloud generated and scored, kept across runs: never computed twice for the same content.

One SQLite file, so that parallel jobs never see a half-written entry. A generation's key holds the
model, the prompt version, the sampling settings, the record's hash, the sample index and the seed,
never the share ratio. Entries are counted by user: an entry that no user holds any more is deleted.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from storage.hashing import hash_bytes

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
  key TEXT PRIMARY KEY, value TEXT NOT NULL, check_sum TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS holders (key TEXT NOT NULL, user TEXT NOT NULL, PRIMARY KEY (key, user));
CREATE INDEX IF NOT EXISTS holders_by_user ON holders (user);
"""
_LOCK_WAIT_S = 60.0
_BATCH = 500


class Cache:
    """Entries by content key, each with the users that hold it."""

    def __init__(self, path: Path) -> None:
        """Open or make the cache file at ``path``."""
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._connect() as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.executescript(_SCHEMA)

    def get(self, keys: Iterable[str]) -> dict[str, Any]:
        """The values of those ``keys`` that are there and whole; a corrupt entry is left out."""
        found: dict[str, Any] = {}
        with self._connect() as connection:
            for batch in _batches(sorted(set(keys))):
                marks = ",".join("?" * len(batch))
                rows = connection.execute(
                    f"SELECT key, value, check_sum FROM entries WHERE key IN ({marks})",
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

    def hold(self, user: str, keys: Iterable[str]) -> None:
        """Note that ``user``'s records gave rise to ``keys``."""
        with self._connect() as connection:
            connection.executemany(
                "INSERT OR IGNORE INTO holders VALUES (?, ?)", [(key, user) for key in keys]
            )

    def release(self, user: str, keep: Iterable[str] = ()) -> int:
        """Drop ``user``'s hold on all entries but ``keep``; delete what nobody holds any more.

        Returns:
            How many entries were deleted.
        """
        kept = set(keep)
        with self._connect() as connection:
            held = connection.execute("SELECT key FROM holders WHERE user = ?", (user,)).fetchall()
            gone = [key for (key,) in held if key not in kept]
            connection.executemany(
                "DELETE FROM holders WHERE key = ? AND user = ?", [(key, user) for key in gone]
            )
            before = connection.total_changes
            connection.executemany(
                "DELETE FROM entries WHERE key = ?1"
                " AND NOT EXISTS (SELECT 1 FROM holders WHERE key = ?1)",
                [(key,) for key in gone],
            )
            return connection.total_changes - before

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._path, timeout=_LOCK_WAIT_S)) as connection, connection:
            yield connection


def _batches(keys: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(keys), _BATCH):
        yield list(keys[start : start + _BATCH])
