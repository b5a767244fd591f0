"""One group of tables of docs/results: run what is missing, then write the group's report.

    python -m benchmarks.results table3
    python -m benchmarks.results headlines data=<folder> cloud=<gguf> device=<gguf> nli=<folder>

What each group runs stands in results.yaml. A run that is finished is not run again and one that
was ended goes on where it was, so the same line can be given until the group is complete. Runs lie
below ``paths.runs``; the report, its tables and pictures in docs/results/<group>. ``--dry-run``
says what each run would take and runs nothing. What stands behind ``--`` is added to every run:

    python -m benchmarks.results paper_table1 data=<folder> -- resources=multi_gpu
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Formatter

import yaml

from conf.compose import compose
from conf.errors import ConfigError
from conf.names import suggestion
from sim.folders import ROOT, RunFolder
from sim.report.report import REPORT, write_combined
from sim.run.lifecycle import with_absolute_paths
from sim.run.prepare import check
from sim.terminal import PlainConsole

GROUPS = Path(__file__).with_suffix(".yaml")
RESULTS = ROOT / "docs" / "results"
DRY_RUN = "--dry-run"


@dataclass(frozen=True, slots=True)
class Group:
    """Runs that make one report.

    Attributes:
        name: Its folder below docs/results.
        about: What it shows.
        runs: The words of each run, with slots such as ``{data}``.
    """

    name: str
    about: str
    runs: tuple[tuple[str, ...], ...]


def main(argv: Sequence[str]) -> int:
    """Bring one group to its end.

    Returns:
        0, or the exit status of the run that failed.
    """
    words, more = _parted(argv)
    groups = read_groups(GROUPS)
    names = [word for word in words if "=" not in word and word != DRY_RUN]
    if len(names) != 1 or names[0] not in groups:
        for group in groups.values():
            print(f"{group.name:14} {group.about}")
        hint = f" {suggestion(names[0], groups)}" if names else ""
        print(f"error: expected one group, got {' '.join(names) or 'none'}.{hint}", file=sys.stderr)
        return 2
    group = groups[names[0]]
    given = dict(word.split("=", 1) for word in words if "=" in word)
    runs = [[*run, *more] for run in filled(group, given)]
    if DRY_RUN in words:
        status = next((status for run in runs if (status := _sim([*run, DRY_RUN]))), 0)
        return status or _show_totals(group, runs)
    root = Path(compose(()).paths.runs)
    folders = [RunFolder(root / f"{group.name}-{number}") for number in range(len(runs))]
    for folder, run in zip(folders, runs, strict=True):
        if status := _finish(folder, run):
            return status
    paths = [folder.path for folder in folders]
    write_combined(paths, RESULTS / group.name / REPORT, PlainConsole())
    return 0


def _show_totals(group: Group, runs: Sequence[Sequence[str]]) -> int:
    """Say what all runs of a group take of one GPU, each size for itself."""
    from sim.run import cards  # these load a deep-learning library
    from sim.run.estimate import card_hours

    each_run = []
    for run in runs:
        config = with_absolute_paths(compose(run))
        each_run.append(card_hours(config, check(config)))
    for of_one_size in zip(*each_run, strict=True):
        print(f"{group.name}, {len(runs)} runs, {cards.line(cards.total(of_one_size))}")
    return 0


def _parted(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    words = list(argv)
    place = words.index("--") if "--" in words else len(words)
    return words[:place], words[place + 1 :]


def read_groups(path: Path) -> dict[str, Group]:
    """Read the groups, by name."""
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
    return {
        name: Group(
            name,
            entry["about"],
            tuple((*_flat(entry["words"]), *own) for own in entry["runs"]),
        )
        for name, entry in entries.items()
    }


def filled(group: Group, given: Mapping[str, str]) -> list[list[str]]:
    """Put what the command line gives into the slots of a group's runs.

    Raises:
        ConfigError: If a slot is not given, or what is given has no slot.
    """
    words = (word for run in group.runs for word in run)
    slots = {name for word in words for _, name, *_ in Formatter().parse(word) if name}
    if slots != set(given):
        asked = " ".join(f"{slot}=<path>" for slot in sorted(slots)) or "no further word"
        got = ", ".join(sorted(given)) or "none"
        raise ConfigError(f"{group.name}: expected {asked}, got {got}")
    return [[word.format_map(given) for word in run] for run in group.runs]


def _flat(words: Iterable[str | list[str]]) -> list[str]:
    """YAML puts an alias into a list as a list."""
    return [one for word in words for one in (word if isinstance(word, list) else [word])]


def _finish(folder: RunFolder, words: Sequence[str]) -> int:
    """Run, go on with, or leave one run as it is; returns its exit status."""
    if folder.finished.is_file():
        return 0
    place = [f"name={folder.path.name}", f"paths.runs={folder.path.parent}"]
    return _sim(["resume", f"run={folder.path}"] if folder.is_run else [*words, *place])


def _sim(words: Sequence[str]) -> int:
    return subprocess.run([sys.executable, "-m", "sim", *words], check=False).returncode


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except ConfigError as error:
        sys.exit(f"error: {error}")
