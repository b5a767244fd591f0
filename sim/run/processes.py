"""Processes by their ids, as Linux tells of them."""

from __future__ import annotations

from pathlib import Path

from clients.processes import began


def descendants(pid: int) -> list[int]:
    """The processes that ``pid`` started, and theirs."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [
            int(child) for task in tasks for child in (task / "children").read_text().split()
        ]
    except OSError:  # it ended in the meantime
        return []
    return children + [deeper for child in children for deeper in descendants(child)]


def title(pid: int) -> bytes:
    """The command line of ``pid``, empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def alive(pid: int) -> bool:
    """Whether ``pid`` is there and no zombie."""
    return began(pid) != ""
