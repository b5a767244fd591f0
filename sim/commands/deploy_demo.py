"""``python -m sim deploy-demo``: real devices on loopback beside a simulation of the same users."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from conf.compose import compose
from conf.words import read_words
from sim import exit_status
from sim.deploy.demo import demonstrate
from sim.terminal import PlainConsole

USAGE = "usage: python -m sim deploy-demo [folder=<where to work>] [cache=<cache of models>]"


def main(argv: Sequence[str]) -> int:
    """Run the demonstration.

    Returns:
        0 if every check is good, else 1.
    """
    console = PlainConsole()
    if set(argv) & {"-h", "--help"}:
        console.print(USAGE)
        return exit_status.OK
    values, _ = read_words("deploy-demo", argv, ("folder", "cache"))
    config = compose(())
    default = Path(config.paths.runs) / f"deploy-demo-{datetime.now():%Y%m%d-%H%M%S}"
    cache = Path(values.get("cache") or config.paths.cache).expanduser().absolute()
    return demonstrate(
        Path(values.get("folder") or default).expanduser().absolute(), cache, console
    )
