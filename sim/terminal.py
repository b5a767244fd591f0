"""The terminal: what comes from outside is shown as it is, never parsed, and never ends a run.

Strings are no markup unless the code says so, control characters are shown as U+FFFD, and a
character that the terminal's encoding lacks becomes a question mark. Colours and width are those of
rich, which knows ``NO_COLOR``, ``TERM=dumb`` and pipes.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterable, Sequence

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table

# C0 and C1 controls but tab and line feed, and what reverses the order of text
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class PlainConsole(Console):
    """A console that shows strings as they are; markup has to be asked for."""

    def __init__(self, *, stderr: bool = False, **options: object) -> None:
        """Write to stdout, or to stderr; further options are rich's."""
        plain: dict[str, object] = {"markup": False, "emoji": False, "highlight": False}
        super().__init__(stderr=stderr, **{**plain, **options})  # type: ignore[arg-type]

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Render as rich does, without control characters in texts."""
        for segment in super().render(renderable, options):
            if segment.control or not _CONTROL.search(segment.text):
                yield segment
            else:
                yield Segment(_CONTROL.sub("\ufffd", segment.text), segment.style)


def words_table(title: str, words: Sequence[str], numbers: Sequence[str]) -> Table:
    """A table whose leading columns hold words, which fold and are never cut."""
    table = Table(title=title, title_justify="left")
    for heading in words:
        table.add_column(heading, overflow="fold")
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def forgive_encoding() -> None:
    """Let stdout and stderr replace what their encoding lacks instead of raising."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
