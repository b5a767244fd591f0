"""User histories as JSON values, for device folders and the server's public users."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from lamp.records import Pair, ProfileItem, Query, UserHistory
from storage.hashing import hash_json


def history_to_json(history: UserHistory) -> dict[str, Any]:
    """Turn a history into a JSON value; :func:`history_from_json` reads it back."""
    return {
        "user_id": history.user_id,
        "profile": [
            {"id": item.id, "fields": dict(item.fields), "date": item.date}
            for item in history.profile
        ],
        "pairs": [asdict(pair) for pair in history.pairs],
        "queries": [asdict(query) for query in history.queries],
    }


def history_from_json(value: dict[str, Any]) -> UserHistory:
    """Read what :func:`history_to_json` wrote.

    Raises:
        KeyError: If a part is missing.
        TypeError: If a record has unknown or missing fields.
    """
    return UserHistory(
        user_id=value["user_id"],
        profile=tuple(ProfileItem(**item) for item in value["profile"]),
        pairs=tuple(Pair(**pair) for pair in value["pairs"]),
        queries=tuple(Query(**query) for query in value["queries"]),
    )


def record_hash(pair: Pair) -> str:
    """What names a shared record in caches, ledgers and withdrawals: its content, never its id."""
    return hash_json([pair.input, pair.response])
