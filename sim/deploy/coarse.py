"""The second run of ``deploy-demo``: the same devices under coarse numbers, held against the exact.

What the server learns then is one loss of each training and one score of each user's answers, with
two digits; both must be those of the exact numbers, and nothing else may have left.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from clients import folder as device_folder
from clients import policy as policy_file
from clients.policy import Bounds, Budget
from conf.compose import to_json
from conf.schema import Config
from sim.deploy.compare import Check
from sim.folders import RunFolder
from storage import atomic, jsonlines

MINIMUM = 5  # queries of each user; a real policy starts at 10
NAME = "coarse"


def make_coarse(devices: Iterable[Path]) -> None:
    """Give the devices what a real one starts with: coarse numbers, a budget, bounds."""
    for own in devices:
        policy = device_folder.read(own).policy
        coarse = replace(
            policy,
            numbers="coarse",
            permits=(),
            minimum=MINIMUM,
            budget=Budget(),
            bounds=replace(Bounds(), max_seq_len=(64, 4096)),
        )
        policy_file.write(own, coarse)


def coarse_run(deployed: RunFolder, users: int, arm: str) -> RunFolder:
    """A second run of the server's, of one arm, with the devices that are left."""
    config: Config = deployed.read_config()
    method, _, ratio = arm.partition("@")
    changed = replace(config, users=users, methods=(method,), ratios=(float(ratio),), name=NAME)
    folder = RunFolder(deployed.path.with_name(NAME))
    for name in ("server", "manifest"):
        source = getattr(deployed, name)
        atomic.write_bytes(getattr(folder, name), source.read_bytes())
    atomic.write_text(folder.config, to_json(changed) + "\n")
    return folder


def compare_coarse(
    deployed: RunFolder, coarse: RunFolder, devices: Mapping[str, Path], arm: str
) -> list[Check]:
    """Hold what left under coarse numbers against the exact ones of the same users and arm."""
    exact = {user: _exact(deployed, user, arm) for user in devices}
    shown = {user: _shown(coarse, user, arm) for user in devices}
    columns = {
        column
        for row in jsonlines.read(coarse.path / "answers.jsonl")
        for column in ("query", "rouge1", "rougeL", "text", "gold_text", "seconds", "tokens")
        if row.get(column)
    }
    budget = {user: jsonlines.read(own / "sent.jsonl") for user, own in devices.items()}
    bits = {user: round(list(lines)[-1]["in_all"][1], 1) for user, lines in budget.items()}
    return [
        Check(
            "coarse: mean loss and score of each user",
            _told(exact),
            _told(shown),
            exact == shown and bool(shown),
        ),
        Check("coarse: numbers per query, texts, times", "many", f"{sorted(columns)}", not columns),
        Check(
            "coarse: bits charged to each device",
            "no bound",
            json.dumps(bits),
            all(0 < each <= (Budget().bits or 0) for each in bits.values()),
        ),
    ]


def _exact(run: RunFolder, user: str, arm: str) -> tuple[float, float]:
    losses = [row["losses"] for row in _of(run, "adaptations", user, arm)][-1]
    scores = {row["query"]: row["rouge1"] for row in _of(run, "answers", user, arm)}
    mean = sum(losses) / len(losses)
    return (
        float(f"{min(max(mean, 0.1), 9.9):.2g}"),
        round(sum(scores.values()) / len(scores), 2),
    )


def _shown(run: RunFolder, user: str, arm: str) -> tuple[float, float]:
    (loss,) = [row["losses"] for row in _of(run, "adaptations", user, arm)][-1]
    sums = [row["sums"] for row in _of(run, "answers", user, arm)][-1]
    return loss, round(sums[2] / sums[0], 2)


def _of(run: RunFolder, name: str, user: str, arm: str) -> list[dict[str, Any]]:
    rows = jsonlines.read(run.path / f"{name}.jsonl")
    return [row for row in rows if (row["user"], row["arm"]) == (user, arm)]


def _told(numbers: Mapping[str, tuple[float, float]]) -> str:
    return "; ".join(f"{loss:g}, {score:g}" for loss, score in numbers.values())
