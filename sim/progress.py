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

from strategy.progress import Phase


class TerminalProgress:
    """Shows one bar for each running phase and leaves one line when it ends."""

    def __init__(self, console: Console) -> None:
        """Write to ``console``."""
        self._console = console

    @contextmanager
    def phase(self, name: str, total: int) -> Iterator[Phase]:
        """Show a bar of ``total`` steps until the block ends."""
        if total == 0:
            yield _Counter()
            return
        started = time.perf_counter()
        bar = Progress(
            TextColumn("  {task.description:<28}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        counter = _Counter()
        with bar:
            task = bar.add_task(name, total=total)
            counter.on_advance = lambda steps: bar.advance(task, steps)
            yield counter
        seconds = time.perf_counter() - started
        self._console.print(
            f"  {name:<28} {counter.done:>6}  [dim]{seconds:7.1f} s[/dim]", highlight=False
        )

    def note(self, text: str) -> None:
        """Say one thing that the user should know."""
        self._console.print(f"  [yellow]note[/yellow] {text}", highlight=False)


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
