"""Progress across processes: the ServerApp writes JSON lines, whoever started the run follows them.

<run>/progress.jsonl   phases with their steps, notes, finished arms, and why a run failed
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from conf.errors import CdcdaError, RunError
from sim.folders import RunFolder
from storage import jsonlines
from strategy.progress import Phase, Progress, StepProgress


def progress_file(folder: RunFolder) -> Path:
    """Where the lines of a run lie."""
    return folder.path / "progress.jsonl"


class FileProgress:
    """Writes progress to the run folder."""

    def __init__(self, folder: RunFolder) -> None:
        """Write to ``folder``."""
        self._path = progress_file(folder)

    @contextmanager
    def phase(self, name: str, total: int) -> Iterator[Phase]:
        """Tell every step of a phase."""
        yield _Told(lambda done: self._tell(phase=name, done=done, total=total))

    def note(self, text: str) -> None:
        """Tell a note."""
        self._tell(note=text)

    def arm(self, name: str) -> None:
        """Tell that an arm is finished."""
        self._tell(arm=name)

    def error(self, error: CdcdaError) -> None:
        """Tell why the run failed."""
        self._tell(error=str(error))

    def _tell(self, **line: Any) -> None:
        jsonlines.append(self._path, [line])


class Follower:
    """Shows what a :class:`FileProgress` of another process tells."""

    def __init__(
        self, folder: RunFolder, progress: Progress, on_arm: Callable[[str], None] = lambda _: None
    ) -> None:
        """Follow ``folder`` from now on: an earlier process's lines are dropped."""
        self._path, self._progress, self._on_arm = progress_file(folder), progress, on_arm
        self._path.unlink(missing_ok=True)
        self._steps, self._read, self._error = StepProgress(progress), 0, ""

    def show_news(self) -> bool:
        """Show the lines that were written since the last call; a half-written one waits.

        Returns:
            Whether there were any.
        """
        if not self._path.is_file():
            return False
        before = self._read
        with self._path.open("rb") as file:
            file.seek(self._read)
            while (line := file.readline()).endswith(b"\n"):
                self._read = file.tell()
                self._show(json.loads(line))
        return self._read > before

    def close(self) -> None:
        """Close the phases that did not end.

        Raises:
            RunError: If the other process told why it failed.
        """
        self.show_news()
        self._steps.__exit__()
        if self._error:
            raise RunError(self._error)

    def _show(self, line: dict[str, Any]) -> None:
        if "phase" in line:
            self._steps(line["phase"], line["done"], line["total"])
        elif "note" in line:
            self._progress.note(line["note"])
        elif "arm" in line:
            self._on_arm(line["arm"])
        else:
            self._error = line["error"]


class _Told:
    """Counts steps and tells their sum."""

    def __init__(self, tell: Callable[[int], None]) -> None:
        self._tell, self._done = tell, 0

    def advance(self, steps: int = 1) -> None:
        """Count ``steps`` further steps as done."""
        self._done += steps
        self._tell(self._done)
