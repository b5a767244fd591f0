"""Processes by their ids, as Linux tells of them."""

from __future__ import annotations

from pathlib import Path


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
    return (_stat(pid) or ["Z"])[0] != "Z"


def born(pid: int) -> str:
    """When ``pid`` started, in the kernel's ticks: ids are used again. Empty when it is gone."""
    stat = _stat(pid)
    return stat[19] if stat else ""


def _stat(pid: int) -> list[str]:
    """What the kernel tells of ``pid`` behind its name."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
