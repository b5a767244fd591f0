"""Whether two checkouts give the same results: ``python -m benchmarks.same_results <run> <run>``.

For a redesign that must not change behaviour. Make one run with each checkout, from empty caches,
on one machine, users one at a time so that nothing is summed in another order:

    CDCDA_CACHE=<empty folder> python -m sim experiment=smoke qlora.cohort=1 name=<one per checkout>

and compare the two folders. Compared to the last digit: scores per query, losses per step, kept and
rejected candidates per user, bytes and records per message kind. Times, and names of fields that a
redesign may change, are not.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from conf.errors import ConfigError
from storage import jsonlines

SCORES = ("parsed", "gold", "prediction", "error", "rouge1", "rougeL", "tokens", "text")
COUNTS = ("steps", "records", "synthetic", "tokens", "adapter_bytes", "shortened")
SHOWN = 3
USAGE = "usage: python -m benchmarks.same_results <run folder> <run folder>"

Facts = dict[Any, Any]
Row = dict[str, Any]


def main(argv: Sequence[str]) -> int:
    """Compare two run folders; the exit status is 0 where they are the same.

    Raises:
        ConfigError: If there are not two folders with answers.
    """
    folders = [Path(word) for word in argv]
    if len(folders) != 2 or not all((each / "answers.jsonl").is_file() for each in folders):
        raise ConfigError(USAGE)
    differing = 0
    for name, read in PARTS.items():
        first, second = (read(list(jsonlines.read(each / f"{name}.jsonl"))) for each in folders)
        keys = sorted({*first, *second}, key=repr)
        unlike = [key for key in keys if first.get(key) != second.get(key)]
        differing += len(unlike)
        print(f"{name:<14} {len(keys):>6} compared, {len(unlike)} differ")
        for key in unlike[:SHOWN]:
            print(f"  {key}: {first.get(key)} | {second.get(key)}")
    print("the same" if not differing else "NOT the same")
    return int(differing > 0)


def _answers(rows: Iterable[Row]) -> Facts:
    return {
        (row["arm"], row["user"], row["query"]): [row.get(name) for name in SCORES] for row in rows
    }


def _adaptations(rows: Iterable[Row]) -> Facts:
    return {
        (row["arm"], row["user"], row.get("round", 0)): [
            *(row.get(name) for name in COUNTS),
            row["losses"],
        ]
        for row in rows
    }


def _augmentation(rows: Iterable[Row]) -> Facts:
    return {
        (row["arm"], row["user"]): [row["shared"], row["generated"], row["kept"], row["rejected"]]
        for row in rows
    }


def _ledger(rows: Iterable[Row]) -> Facts:
    """Messages, bytes and records in all per arm, kind, direction and user."""
    totals: dict[str, Counter[Any]] = {
        "messages": Counter(),
        "bytes": Counter(),
        "records": Counter(),
    }
    for row in rows:
        key = (row["arm"], row["kind"], row["direction"], row["user"])
        totals["messages"][key] += 1
        totals["bytes"][key] += row["bytes"]
        totals["records"][key] += row["records"]
    return {key: [total[key] for total in totals.values()] for key in totals["messages"]}


PARTS: dict[str, Callable[[list[Row]], Facts]] = {
    "answers": _answers,
    "adaptations": _adaptations,
    "augmentation": _augmentation,
    "ledger": _ledger,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
