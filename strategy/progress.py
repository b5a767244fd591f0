"""How the strategy tells what it is doing: phases with a known number of steps."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

logger = logging.getLogger(__name__)


class Phase(Protocol):
    """One running phase."""

    def advance(self, steps: int = 1) -> None:
        """Count ``steps`` further steps as done."""


class Progress(Protocol):
    """Where progress goes: a terminal, a log, nowhere."""

    def phase(self, name: str, total: int) -> AbstractContextManager[Phase]:
        """Open a phase of ``total`` steps; it ends with the block."""

    def note(self, text: str) -> None:
        """Say one thing that the user should know."""


class LoggedProgress:
    """Progress as log lines, for routes without a terminal of their own (``flwr run``)."""

    @contextmanager
    def phase(self, name: str, total: int) -> Iterator[Phase]:
        """Log the start and the end of a phase."""
        logger.info("%s: %d to do", name, total)
        yield _Silent()
        logger.info("%s: done", name)

    def note(self, text: str) -> None:
        """Log ``text``."""
        logger.warning("%s", text)


class _Silent:
    def advance(self, steps: int = 1) -> None:
        """Say nothing."""
