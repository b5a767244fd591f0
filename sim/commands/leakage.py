"""``python -m sim leakage run=...``: attack a finished run again and write its report anew."""

from __future__ import annotations

from collections.abc import Sequence

from conf.words import read_words
from sim.folders import asked_run, locked
from sim.terminal import PlainConsole

USAGE = "usage: python -m sim leakage run=<folder or name> [runs=<folder of runs>]"


def main(argv: Sequence[str]) -> int:
    """Audit one run and print what leaked."""
    console = PlainConsole()
    if set(argv) & {"-h", "--help"}:
        console.print(USAGE)
        return 0
    from sim.run.engine import set_environment

    set_environment()
    from sim.leakage.audit import audit
    from sim.report.leakage_tables import sentences
    from sim.report.report import write_report
    from sim.run.progress import TerminalProgress

    values, _ = read_words("leakage", argv, ("run", "runs"))
    folder = asked_run("leakage", values)
    with locked(folder):
        audit(folder, TerminalProgress(console))
        (results,) = write_report([folder.path])
    for sentence in sentences(results):
        console.print(sentence)
    return 0
