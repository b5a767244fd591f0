"""``python -m sim``: compose, check, set up, simulate, report."""

from __future__ import annotations

from collections.abc import Sequence

from conf.compose import compose
from sim import exit_status
from sim.run import surroundings
from sim.run.engine import set_environment
from sim.run.lifecycle import start, with_absolute_paths
from sim.run.prepare import check
from sim.terminal import PlainConsole


def main(overrides: Sequence[str], dry_run: bool = False) -> int:
    """Run one experiment; with ``dry_run`` only tell what would run.

    Returns:
        The exit status: :mod:`sim.exit_status`.
    """
    console = PlainConsole()
    config = with_absolute_paths(compose(overrides))
    set_environment()  # before anything imports transformers
    surroundings.check(config)
    data = check(config)
    if dry_run:
        from sim.run.estimate import print_estimate

        print_estimate(config, data, console)
        return exit_status.OK
    return start(config, data, console)
