"""``python -m sim resume run=...``: go on with a run that was ended, at whatever moment.

What the run folder and the caches hold is taken as it is: models, augmentation, adaptations and
answers that were finished. What was under way is done again, with the same seeds, and users who
failed are tried again.
"""

from __future__ import annotations

from collections.abc import Sequence

from conf.words import read_words
from sim.folders import asked_run
from sim.run import lifecycle
from sim.terminal import PlainConsole

USAGE = "usage: python -m sim resume run=<folder or name> [runs=<folder of runs>]"


def main(argv: Sequence[str]) -> int:
    """Finish the run and report it.

    Returns:
        The exit status, as for ``run``.
    """
    console = PlainConsole()
    if set(argv) & {"-h", "--help"}:
        console.print(USAGE)
        return 0
    values, _ = read_words("resume", argv, ("run", "runs"))
    folder = asked_run("resume", values)
    config = folder.read_requested()
    return lifecycle.go_on(config, folder, console)
