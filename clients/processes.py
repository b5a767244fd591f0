"""Whether another process is still there, told apart from a later one with the same id."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_STATE, _STARTED = 0, 19  # places in /proc/<pid>/stat after the command's name


@dataclass(frozen=True, slots=True)
class Process:
    """One process.

    Attributes:
        pid: Its id.
        began: When it began, in the kernel's clock ticks; "" where the system does not tell.
    """

    pid: int
    began: str

    def is_there(self) -> bool:
        """Whether it runs still; one that ended and was not waited for does not."""
        if not self.began:
            return _exists(self.pid)
        return began(self.pid) == self.began


def of(pid: int) -> Process:
    """The process that has the id ``pid`` now."""
    return Process(pid, began(pid))


def began(pid: int) -> str:
    """When the process ``pid`` began; "" for a zombie, and where none is there or told of."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    values = stat.rpartition(")")[2].split()
    return "" if values[_STATE] == "Z" else values[_STARTED]


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
