"""Whether a run's ledger is as it was written, and agrees with what the devices kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clients import folder as device_folder
from clients import sent
from sim.folders import RunFolder
from storage import chain, jsonlines
from storage.text_files import read_json
from strategy.ledger import UP, WITHDRAWAL


def verify(folder: RunFolder, devices: Path) -> list[str]:
    """What is wrong with the ledger of a run, one clause each; nothing for a sound one.

    Args:
        folder: The run.
        devices: Parent of the devices' folders, as far as they are at hand.
    """
    path = folder.path / "ledger.jsonl"
    found = [f"ledger.jsonl: {fault}" for fault in chain.faults(path, read_head(folder))]
    noted = {
        (line["user"], line["kind"], line["hash"])
        for line in jsonlines.read(path)
        if line["direction"] == UP and line["kind"] != WITHDRAWAL
    }
    for own in sorted(devices.glob(f"*/{sent.FILE}")):
        found += [f"{own.parent.name}/{sent.FILE}: {fault}" for fault in chain.faults(own)]
        user = device_folder.read(own.parent).user_id
        kept = {
            (user, line["kind"], line["hash"])
            for line in jsonlines.read(own)
            if line["what"] == sent.LEFT
        }
        for _, kind, digest in sorted(kept - noted):
            found.append(f"user {user} sent {kind} {digest[:12]}, which the ledger does not have")
        for _, kind, digest in sorted({each for each in noted if each[0] == user} - kept):
            found.append(f"user {user}: the ledger has {kind} {digest[:12]}, which was not sent")
    return found


def note_head(folder: RunFolder) -> dict[str, Any]:
    """How far the ledger has come, for the file that says that a run is finished."""
    path = folder.path / "ledger.jsonl"
    last = chain.last(path)
    return {"lines": sum(1 for _ in jsonlines.read(path)), "line": last.get(chain.LINE, "")}


def read_head(folder: RunFolder) -> chain.Head | None:
    """What :func:`note_head` noted; None where the run has not finished."""
    if not folder.finished.is_file():
        return None
    noted = read_json(folder.finished).get("ledger")
    return chain.Head(noted["lines"], noted["line"]) if noted else None
