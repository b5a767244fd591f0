"""``python -m sim report``: make the report of finished runs again, without training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from conf.compose import compose
from conf.errors import ConfigError
from conf.words import read_words, required
from sim.folders import find_run, find_sweep
from sim.report import report
from sim.terminal import PlainConsole

USAGE = (
    "usage: python -m sim report run=<folder or name>        (a run, or several of one sweep)\n"
    "       python -m sim report runs=[<run>,<run>,...] [out=<file>.md]  (seeds and tasks in one)"
)


def main(argv: Sequence[str]) -> int:
    """Rebuild the report of a run, or write one document about several.

    Args:
        argv: ``run=<folder or name>``, or ``runs=[a,b,...]`` with an optional ``out=<file>.md``.

    Raises:
        ConfigError: If a word is refused.
        RunError: If a run cannot be read, or runs of one task are no repetitions of one setting.
    """
    console = PlainConsole()
    if set(argv) & {"-h", "--help"}:
        console.print(USAGE)
        return 0
    values, _ = read_words("report", argv, ("run", "runs", "out"))
    if ("run" in values) == ("runs" in values):
        raise ConfigError(f"report: expected either run or runs; {USAGE}")
    root = Path(compose(()).paths.runs)
    if "run" in values:
        name = required("report", values, "run", "demo")
        if sweep := find_sweep(name, root):
            report.write_combined(sweep.runs, sweep.path / report.REPORT, console)
            return 0
        folder = find_run(name, root).path
        for results in report.write_report([folder]):
            report.show(results, console)
        return 0
    names = [name.strip() for name in values["runs"].strip("[]()").split(",")]
    folders = [find_run(name, root).path for name in names if name]
    report.write_combined(
        folders, Path(values.get("out") or root / "combined" / report.REPORT), console
    )
    return 0
