"""``python -m sim cache prune``: delete cached generations that nobody holds, and damaged ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from conf.compose import compose
from conf.errors import ConfigError
from conf.words import read_words
from sim.report.tables import plural, size
from sim.terminal import PlainConsole
from strategy.cache import Cache

USAGE = "usage: python -m sim cache prune [cache=<folder>]"


def main(argv: Sequence[str]) -> int:
    """Prune the cache and say what went."""
    console = PlainConsole()
    if set(argv) & {"-h", "--help"}:
        console.print(USAGE)
        return 0
    values, actions = read_words("cache", argv, ("cache",), free=True)
    if actions != ["prune"]:
        raise ConfigError(f"cache: expected the word prune, got {' '.join(actions) or 'nothing'}")
    folder = Path(values.get("cache") or compose(()).paths.cache).expanduser()
    path = folder / "augmentation.sqlite"
    if not path.is_file():
        console.print("There is no cache yet.")
        return 0
    pruned = Cache(path).prune()
    console.print(
        f"{plural(pruned.unheld, 'cached value')} that nobody held and {pruned.damaged} damaged "
        f"deleted, {pruned.left:,} left, {size(pruned.freed_bytes)} freed.",
    )
    return 0
