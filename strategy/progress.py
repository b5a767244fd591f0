"""How the strategy tells what it is doing: phases with a known number of steps."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Protocol, Self

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


class StepProgress:
    """Turns calls with (phase, steps done, steps in all) into phases, also side by side."""

    def __init__(self, progress: Progress) -> None:
        """Tell ``progress``."""
        self._progress = progress
        self._open: dict[str, _Steps] = {}
        self._lock = Lock()  # phases may report from threads of their own

    def __enter__(self) -> Self:
        """Start with no phase open."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close what did not reach its last step."""
        for name in list(self._open):
            self._open.pop(name).stack.close()

    def __call__(self, name: str, done: int, total: int) -> None:
        """Note that ``done`` of ``total`` steps of the phase ``name`` are done."""
        with self._lock:
            if name not in self._open:
                stack = ExitStack()
                self._open[name] = _Steps(
                    stack, stack.enter_context(self._progress.phase(name, total))
                )
            steps = self._open[name]
            steps.phase.advance(done - steps.done)
            steps.done = done
            if done >= total:
                self._open.pop(name).stack.close()


@dataclass(slots=True)
class _Steps:
    """One phase of :class:`StepProgress` that is under way."""

    stack: ExitStack
    phase: Phase
    done: int = 0


class _Silent:
    def advance(self, steps: int = 1) -> None:
        """Say nothing."""
