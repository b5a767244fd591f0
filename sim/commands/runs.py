"""``python -m sim runs``: every run there is, with its state, what it found, age and size."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from conf.errors import CdcdaError
from conf.schema import Config
from conf.words import read_words
from lamp import metrics, tasks
from sim.folders import RunFolder, find_sweep, runs_root
from sim.report.tables import make_table, metric_title, short, signed, size, to_rich
from sim.terminal import PlainConsole
from storage import jsonlines

USAGE = "usage: python -m sim runs [runs=<folder of runs>]"
MINUTE, HOUR, DAY = 60, 3600, 86400


@dataclass(frozen=True, slots=True)
class Listed:
    """One run in the list.

    Attributes:
        name: Below the folder of runs; a run of a sweep has the sweep's name in front.
        state: "done", "part failed", "begun" or "unreadable".
        task: Its task; "" where the configuration cannot be read.
        found: The first declared contrast, or the best score.
        seconds: Since its last file was written.
        num_bytes: Of its whole folder.
    """

    name: str
    state: str
    task: str
    found: str
    seconds: float
    num_bytes: int


def main(argv: Sequence[str]) -> int:
    """Print the list, the newest run first."""
    console = PlainConsole()
    if set(argv) & {"-h", "--help"}:
        console.print(USAGE)
        return 0
    values, _ = read_words("runs", argv, ("runs",))
    root = runs_root(values)
    listed = sorted(list_runs(root, time.time()), key=lambda each: each.seconds)
    if not listed:
        console.print(f"No runs in {root}; make one: python -m sim", soft_wrap=True)
        return 0
    rows = [
        [each.name, each.state, each.task, each.found, _ago(each.seconds), size(each.num_bytes)]
        for each in listed
    ]
    table = make_table(("Run", "State", "Task", "Found", "Age", "Size"), rows, left=4)
    console.print(to_rich(table, stacked=False))
    console.print("More: python -m sim report run=<run>")
    return 0


def list_runs(root: Path, now: float) -> Iterator[Listed]:
    """Every run below ``root``, those of sweeps too.

    Args:
        root: Folder of runs.
        now: Seconds since the epoch.
    """
    for path in sorted(root.iterdir()) if root.is_dir() else ():
        sweep = find_sweep(path.name, root)
        for folder in sweep.runs if sweep else (path,):
            if RunFolder(folder).is_run:
                yield _listed(
                    RunFolder(folder), str(folder.relative_to(path.parent.resolve())), now
                )


def _listed(folder: RunFolder, name: str, now: float) -> Listed:
    files = [each.stat() for each in folder.path.rglob("*") if each.is_file()]
    config = _config(folder)
    return Listed(
        name=name,
        state=_state(folder) if config else "unreadable",
        task=config.task.name if config else "",
        found=_found(folder, config) if config else "",
        seconds=now - max(each.st_mtime for each in files),
        num_bytes=sum(each.st_size for each in files),
    )


def _config(folder: RunFolder) -> Config | None:
    try:
        return folder.read_requested()
    except CdcdaError:
        return None  # of another version


def _state(folder: RunFolder) -> str:
    if not folder.finished.is_file():
        return "begun"
    failed = next(iter(jsonlines.read(folder.path / "failures.jsonl")), None)
    return "done" if failed is None else "part failed"


def _found(folder: RunFolder, config: Config) -> str:
    """What results.jsonl says: the first declared contrast of the run, else the best score."""
    name, higher = metrics.headline(tasks.task(config.task))
    lines = {line["method"]: line for line in jsonlines.read(folder.path / "results.jsonl")}
    for contrast in config.contrasts:
        first, _, second = contrast.partition(" - ")
        against = lines.get(first, {}).get("differences", {}).get(second, {}).get(name)
        if against and not lines[first].get("exercised", True):
            return f"{first}: method not exercised"
        if against:
            low, high = against["low"], against["high"]
            ends = "" if low is None else f" [{signed(low)}, {signed(high)}]"
            return f"{contrast}: {signed(against['value'])}{ends}"
    scored = [line for line in lines.values() if name in line["metrics"]]
    if not scored:
        return ""
    best = (max if higher else min)(scored, key=lambda line: line["metrics"][name]["value"])
    return f"{metric_title(name)} {short(best['metrics'][name]['value'])} by {best['arm']}"


def _ago(seconds: float) -> str:
    for unit, word in ((DAY, "d"), (HOUR, "h"), (MINUTE, "min")):
        if seconds >= unit:
            return f"{seconds / unit:.0f} {word}"
    return f"{max(0.0, seconds):.0f} s"
