"""Progress in the terminal: phases, users per phase, time left; else one line a phase."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from strategy.progress import Phase


class TerminalProgress:
    """Shows one bar for each running phase and leaves one line when it ends.

    Phases may run side by side; they share one live display.
    """

    def __init__(self, console: Console, *, lasting: bool = True) -> None:
        """Write to ``console``; without ``lasting`` a phase leaves no line behind."""
        self._console, self._lasting = console, lasting
        self._bars: Progress | None = None
        self._running = 0

    @contextmanager
    def phase(self, name: str, total: int) -> Iterator[Phase]:
        """Show a bar of ``total`` steps until the block ends."""
        counter = _Counter()
        if total == 0:
            yield counter
            return
        started = time.perf_counter()
        bars = self._start()
        task = bars.add_task(name, total=total)
        counter.on_advance = lambda steps: bars.advance(task, steps)
        try:
            yield counter
        finally:
            bars.remove_task(task)
            self._stop(bars)
        seconds = time.perf_counter() - started
        if self._lasting:
            self._console.print(
                Text.assemble(f"  {name:<28} {counter.done:>6}  ", (f"{seconds:7.1f} s", "dim"))
            )

    def note(self, text: str) -> None:
        """Say one thing that the user should know."""
        self._console.print(Text.assemble("  ", ("note", "yellow"), f" {text}"))

    def _start(self) -> Progress:
        self._running += 1
        if self._bars is None:
            self._bars = _bars(self._console)
            self._bars.start()
        return self._bars

    def _stop(self, bars: Progress) -> None:
        self._running -= 1
        if not self._running:
            bars.stop()
            self._bars = None


def _bars(console: Console) -> Progress:
    return Progress(
        TextColumn("  {task.description:<28}", markup=False),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


class _Counter:
    def __init__(self) -> None:
        self.done = 0
        self.on_advance = _ignore

    def advance(self, steps: int = 1) -> None:
        """Count ``steps`` further steps as done."""
        self.done += steps
        self.on_advance(steps)


def _ignore(steps: int) -> None:
    """Default of ``on_advance``."""
