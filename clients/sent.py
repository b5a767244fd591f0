"""The device's own copy of what left it, and what of its budget that has spent.

    <folder>/sent.jsonl    append-only, each line with the hash of the one before (storage.chain)
    <folder>/shared.json   per record that left, the content hashes of the forms in which it left

A message is charged when it comes, before any work: a message that kills its process has told its
server something too. When the reply leaves, a second line notes its content hash, as the server's
ledger has it, so that the two can be held against each other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from clients.policy import Budget
from conf.errors import BudgetError
from storage import atomic, chain
from storage.locks import locked
from storage.text_files import read_json

FILE = "sent.jsonl"
FORMS = "shared.json"
CHARGED = "charged"
LEFT = "left"


@dataclass(frozen=True, slots=True)
class Amount:
    """Messages and bits of numbers."""

    messages: int = 0
    bits: float = 0.0


@dataclass(frozen=True, slots=True)
class Spent:
    """What was charged up to now, in all and on ``day``."""

    day: str
    in_all: Amount
    today: Amount


def charge(folder: Path, budget: Budget, kind: str, bits: float) -> None:
    """Charge one message before it is answered.

    Args:
        folder: The device's folder.
        budget: What its user allows.
        kind: Type of the message.
        bits: Most bits of numbers that the reply can hold.

    Raises:
        BudgetError: If that is more than the user allows; nothing is charged then.
    """
    with locked(folder / ".sent.lock"):
        before = spent(folder)
        _require(budget.messages, budget.bits, before.in_all, bits, "in all")
        _require(budget.messages_per_day, budget.bits_per_day, before.today, bits, "today")
        after = Spent(before.day, _add(before.in_all, bits), _add(before.today, bits))
        _append(folder, {"what": CHARGED, "kind": kind, "bits": bits}, after)


def note(folder: Path, kind: str, arm: str, records: int, size: int, digest: str) -> None:
    """Note a reply that leaves now, by its bytes and their hash."""
    facts = {"kind": kind, "arm": arm, "records": records, "bytes": size, "hash": digest}
    with locked(folder / ".sent.lock"):
        _append(folder, {"what": LEFT, **facts}, spent(folder))


def note_records(folder: Path, hashes: Mapping[str, str]) -> None:
    """Remember in which form records leave: a redaction that changes later changes no history.

    Args:
        folder: The device's folder.
        hashes: Content hash by record id.
    """
    with locked(folder / ".sent.lock"):
        known = forms(folder)
        if all(digest in known.get(name, ()) for name, digest in hashes.items()):
            return
        for name, digest in hashes.items():
            known[name] = sorted({*known.get(name, ()), digest})
        atomic.write_json(folder / FORMS, known)


def forms(folder: Path) -> dict[str, list[str]]:
    """Per record id the content hashes of every form in which it left."""
    path = folder / FORMS
    found: dict[str, list[str]] = read_json(path) if path.is_file() else {}
    return found


def spent(folder: Path) -> Spent:
    """What was charged so far; every line of the file says it."""
    today, line = _today(), chain.last(folder / FILE)
    in_all = Amount(*line.get("in_all", (0, 0.0)))
    return Spent(today, in_all, Amount(*line["today"]) if line.get("day") == today else Amount())


def _add(before: Amount, bits: float) -> Amount:
    return Amount(before.messages + 1, round(before.bits + bits, 6))


def _append(folder: Path, facts: dict[str, Any], so_far: Spent) -> None:
    sums = {"day": so_far.day, "in_all": astuple(so_far.in_all), "today": astuple(so_far.today)}
    chain.append(folder / FILE, [json.loads(json.dumps({**facts, **sums}))])


def _require(
    messages: int | None, bits: float | None, before: Amount, more: float, when: str
) -> None:
    if messages is not None and before.messages >= messages:
        raise BudgetError(f"the budget of {messages} messages {when} is spent")
    if bits is not None and before.bits + more > bits + 1e-6:
        raise BudgetError(
            f"the budget of {bits:g} bits {when} is spent: {before.bits:.1f} left already, "
            f"this message could tell {more:.1f} more"
        )


def _today() -> str:
    return datetime.now(UTC).date().isoformat()
