"""Several runs from one command line: what they are, what they are called, where they lie.

``-m`` takes several values per key from the command line; an experiment may bring ``sweep`` words
of its own. The runs of a sweep lie in one folder, which then gets one report over all of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from conf.compose import compose, expand
from conf.groups import groups
from sim.folders import SWEEP
from storage import atomic


@dataclass(frozen=True, slots=True)
class NamedRuns:
    """The runs of one sweep.

    Attributes:
        folder: Where they lie.
        runs: Words of each run, its name and place included.
    """

    folder: Path
    runs: list[list[str]]


def expand_all(words: Sequence[str], multirun: bool) -> list[list[str]]:
    """One list of words per run.

    Args:
        words: Words of the command line.
        multirun: Whether a key of ``words`` may have several values.

    Raises:
        ConfigError: If one of the runs is refused; then none starts.
    """
    given = expand(words) if multirun else [list(words)]
    runs = [run for each in given for run in expand([*each, *_own_sweep(each)])]
    for run in runs if len(runs) > 1 else ():
        compose(run)
    return runs


def _own_sweep(words: Sequence[str]) -> list[str]:
    """The experiment's own sweep, without the keys that the command line names."""
    named = {_key(word) for word in words}
    return [word for word in compose(words).sweep if _key(word) not in named]


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+")


def name_apart(runs: Sequence[list[str]]) -> NamedRuns:
    """Give every run a name and a place in the sweep's folder, and note them there."""
    configs = [compose(words) for words in runs]
    root = Path(configs[0].paths.runs).absolute()
    names = [config.name for config in configs]
    labels = [_label(words, runs) for words in runs]
    if None not in names and len(set(names)) == len(runs):
        labels = [str(name) for name in names]
    common = names[0] if names[0] is not None and len(set(names)) == 1 else None
    layout = configs[0].layout
    title = layout if layout != "plain" else "sweep"
    folder = _free(root / (common or f"{datetime.now():%Y%m%d-%H%M%S}-{title}"))
    atomic.write_json(folder / SWEEP, {"runs": labels})
    named = [
        [*words, f"paths.runs={_quoted(str(folder))}", f"name={_quoted(label)}"]
        for words, label in zip(runs, labels, strict=True)
    ]
    return NamedRuns(folder, named)


def _label(words: Sequence[str], runs: Sequence[Sequence[str]]) -> str:
    """What parts a run from the others, fit for a folder: "lamp_2-seed1"."""
    own = [word for word in words if any(word not in other for other in runs)]
    parts = []
    for word in own:
        key, _, value = word.partition("=")
        named = value if key in groups() else key.rpartition(".")[2] + value
        parts.append(re.sub(r"[^A-Za-z0-9._]+", "_", named).strip("_."))
    return "-".join(parts)


def _quoted(text: str) -> str:
    escaped = text.replace("'", "\\'")
    return f"'{escaped}'"


def _free(path: Path) -> Path:
    free, number = path, 2
    while free.exists():
        free, number = path.with_name(f"{path.name}-{number}"), number + 1
    return free
