"""``python -m sim ledger run=... [user=...]``: what crossed the wire, in total and of one user.

With ``--verify`` it checks the file: each line carries the hash of the one before, the run's end
noted how far it had come, and every device keeps its own copy of what it sent. A line that was
removed, changed or moved is told, and a copy that disagrees.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from conf.errors import RunError
from conf.words import read_words
from sim import exit_status
from sim.folders import RunFolder, asked_run
from sim.run.ledger_check import verify
from sim.terminal import PlainConsole, words_table
from storage import jsonlines
from strategy.ledger import ENDPOINT, ORACLE, UP, WITHDRAWAL

USAGE = (
    "usage: python -m sim ledger [--verify] run=<folder or name> [user=<id>] "
    "[runs=<folder of runs>] [devices=<folder of device folders>]"
)
VERIFY = "--verify"
GROUPED = ("direction", "kind", "arm")
WIDEST_NAME = 24  # so that a narrow terminal folds between words first


def main(argv: Sequence[str]) -> int:
    """Print the ledger of a run, or of one of its users."""
    console = PlainConsole()
    if set(argv) & {"-h", "--help"}:
        console.print(USAGE)
        return 0
    words = [word for word in argv if word != VERIFY]
    values, _ = read_words("ledger", words, ("run", "user", "runs", "devices"))
    folder = asked_run("ledger", values)
    if VERIFY in argv:
        devices = Path(values["devices"]).expanduser() if "devices" in values else folder.devices
        return _tell_faults(console, folder, verify(folder, devices))
    entries = list(jsonlines.read(folder.path / "ledger.jsonl"))
    user = values.get("user")
    if user is not None:
        entries = entries_of(entries, user)
    title = f"Ledger of {folder.path.name}" + (f", user {user}" if user else "")
    for table in _tables(title, entries):
        console.print(table)
    if user:
        console.print(_sent_table(entries))
        console.print(_answer(user, entries))
    return 0


def _tell_faults(console: PlainConsole, folder: RunFolder, faults: Sequence[str]) -> int:
    for fault in faults:
        console.print(fault)
    if faults:
        return exit_status.FAILED
    console.print(f"Ledger of {folder.path.name}: every line is as it was written.")
    return exit_status.OK


def entries_of(entries: Iterable[dict[str, Any]], user: str) -> list[dict[str, Any]]:
    """The entries of one user.

    Raises:
        RunError: If the ledger does not know the user.
    """
    entries = list(entries)
    own = [entry for entry in entries if entry["user"] == user]
    if not own:
        known = sorted({entry["user"] for entry in entries})
        raise RunError(f"user={user}: not in this ledger; it has {', '.join(known[:10])} ...")
    return own


def _tables(title: str, entries: Sequence[dict[str, Any]]) -> Iterator[Table]:
    """One table per direction; "again" are messages that were delivered once more."""
    totals: dict[tuple[str, ...], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for entry in entries:
        total = totals[tuple(str(entry[key]) for key in GROUPED)]
        amounts = (1, entry["records"], entry["bytes"], int(entry["redelivery"]))
        totals[tuple(str(entry[key]) for key in GROUPED)] = [
            sum(pair) for pair in zip(total, amounts, strict=True)
        ]
    numbers = ("messages", "records", "bytes", "again")
    for direction in dict.fromkeys(key[0] for key in sorted(totals)):
        table = words_table(f"{title}: {direction}", GROUPED[1:], numbers)
        for key in sorted(key for key in totals if key[0] == direction):
            table.add_row(*key[1:], *(f"{number:,}" for number in totals[key]))
        yield table


def _sent_table(entries: Sequence[dict[str, Any]]) -> Table:
    """One row for every message that left the device, in the order they left."""
    sent = [entry for entry in entries if entry["direction"] == UP]
    table = words_table(
        "Everything that left the device",
        ("kind: fields", "arm", "hash"),
        ("records", "bytes", "again"),
    )
    for column, key in zip(table.columns, ("kind", "arm"), strict=False):
        longest = max((len(str(entry[key])) for entry in sent), default=0)
        column.min_width = min(longest + 1, WIDEST_NAME)  # the colon
    for entry in sent:
        again = "yes" if entry["redelivery"] else ""
        what = f"{entry['kind']}: {', '.join(entry['fields'])}"
        numbers = (f"{entry['records']:,}", f"{entry['bytes']:,}", again)
        table.add_row(what, entry["arm"], entry["hash"][:8], *numbers)
    return table


def _answer(user: str, entries: Sequence[dict[str, Any]]) -> str:
    told = [_sent(user, entries)]
    if any(entry["direction"] == ENDPOINT for entry in entries):
        told.append("The server showed what was shared to the endpoint that writes the pairs.")
    if oracles := sorted({entry["arm"] for entry in entries if entry["direction"] == ORACLE}):
        told.append(f"The oracles {', '.join(oracles)} read the whole history.")
    return " ".join(told)


def _sent(user: str, entries: Sequence[dict[str, Any]]) -> str:
    shares = [entry for entry in entries if entry["kind"] == "query.share" and entry["records"]]
    weights = [entry for entry in entries if entry["direction"] == UP and _holds_weights(entry)]
    sent = f" LoRA weights were sent in {len(weights)} message(s)." if weights else ""
    if not shares:
        return f"User {user} never sent a record.{sent}"
    distinct = {entry["hash"] for entry in shares}
    largest = max(entry["records"] for entry in shares)
    return (
        f"User {user} sent {largest} records in {len(distinct)} distinct message(s); "
        f"no other record left the device.{sent}{_withdrawn(entries)}"
    )


def _withdrawn(entries: Sequence[dict[str, Any]]) -> str:
    tombstones = [entry["records"] for entry in entries if entry["kind"] == WITHDRAWAL]
    if not tombstones:
        return ""
    return f" {max(tombstones)} of them were withdrawn later, and the cloud forgot them."


def _holds_weights(entry: dict[str, Any]) -> bool:
    return "weights" in entry.get("fields", ())
