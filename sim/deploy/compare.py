"""Simulation beside deployment: the same users, messages, answers and adapters?"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from clients import download
from clients import folder as device_folder
from sim.folders import RunFolder
from storage import jsonlines

TOLERANCE = 1e-6  # largest difference of any adapter weight; the same machine gives 0
TIMES = ("seconds", "provenance_key")  # differ from run to run
ADAPTER_FILE = "adapter_model.safetensors"


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the table.

    Attributes:
        what: What was compared.
        simulation: What the simulation has.
        deployment: What the deployment has.
        good: Whether that is as it must be.
    """

    what: str
    simulation: str
    deployment: str
    good: bool


@dataclass(frozen=True, slots=True)
class Sides:
    """The two runs and the folders of the real devices.

    Attributes:
        simulated: The simulation's run.
        deployed: The server's run of the deployment.
        devices: The real devices' folders by user.
        lost: Who was killed in mid-run.
        last_arm: The arm that was under way then.
    """

    simulated: RunFolder
    deployed: RunFolder
    devices: Mapping[str, Path]
    lost: str
    last_arm: str


def compare(sides: Sides) -> list[Check]:
    """Hold the deployment against the simulation; what the lost device owed is left out."""
    return [
        _rows("records shared (users)", sides, "shares", lambda _: ""),
        _messages("shared records, by hash", sides, "device -> server", "query.share"),
        _messages("kept texts and settings, by hash", sides, "server -> device", "train.adapt"),
        _rows("synthetic pairs kept (rows)", sides, "augmentation", lambda _: ""),
        _rows("adaptations: steps, losses", sides, "adaptations", lambda row: row["adapter"]),
        _rows("answers, texts included", sides, "answers", lambda row: row["arm"]),
        *_adapters(sides),
        _base_models(sides),
        _failures(sides),
        _unshared(sides),
    ]


def _rows(what: str, sides: Sides, name: str, arm_of: Any) -> Check:
    """Rows of one file, times left out, as sets."""
    simulated, deployed = (
        {
            _identity(row, TIMES)
            for row in jsonlines.read(run.path / f"{name}.jsonl")
            if not _owed(sides, row["user"], arm_of(row))
        }
        for run in (sides.simulated, sides.deployed)
    )
    return Check(what, f"{len(simulated)}", _against(simulated, deployed), simulated == deployed)


def _messages(what: str, sides: Sides, direction: str, kind: str) -> Check:
    simulated, deployed = (
        {
            (line["user"], line["arm"], line["hash"])
            for line in jsonlines.read(run.path / "ledger.jsonl")
            if (line["direction"], line["kind"]) == (direction, kind)
        }
        for run in (sides.simulated, sides.deployed)
    )
    return Check(what, f"{len(simulated)}", _against(simulated, deployed), simulated == deployed)


def _adapters(sides: Sides) -> Iterable[Check]:
    """One line per user: the largest difference of any weight of any adapter."""
    for user, own in sides.devices.items():
        reference = sides.simulated.devices / device_folder.folder_name(user) / "adapters"
        arms = sorted(path.parent.name for path in reference.glob(f"*/{ADAPTER_FILE}"))
        arms = [arm for arm in arms if not _owed(sides, user, arm)]
        present = [arm for arm in arms if (own / "adapters" / arm / ADAPTER_FILE).is_file()]
        apart = max(
            (_difference(reference / arm, own / "adapters" / arm) for arm in present), default=1.0
        )
        yield Check(
            f"adapters of {user}, largest difference",
            f"{len(arms)} adapters",
            f"{len(present)} adapters, {apart:.1e}",
            present == arms and bool(arms) and apart <= TOLERANCE,
        )


def _difference(left: Path, right: Path) -> float:
    one, other = load_file(left / ADAPTER_FILE), load_file(right / ADAPTER_FILE)
    if one.keys() != other.keys():
        return float("inf")
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)


def _base_models(sides: Sides) -> Check:
    held = {user: download.held(own) for user, own in sides.devices.items()}
    sent = [
        line
        for line in jsonlines.read(sides.deployed.path / "ledger.jsonl")
        if (line["kind"], line["direction"]) == ("query.base", "server -> device")
    ]
    size = max((line["bytes"] for line in sent), default=0)
    digests = {digest for each in held.values() for digest in each}
    named = ", ".join(digest[:12] for digest in sorted(digests))
    return Check(
        "M_base",
        "read from the server's disk",
        f"{len(sent)} messages of {size / 1e6:.1f} MB, SHA-256 {named}",
        len(digests) == 1 and all(held.values()) and len(sent) >= len(held),
    )


def _failures(sides: Sides) -> Check:
    failed = {
        (line["user"], line["arm"], line["reason"])
        for line in jsonlines.read(sides.deployed.path / "failures.jsonl")
    }
    good = {(user, arm) for user, arm, _ in failed} == {(sides.lost, sides.last_arm)}
    said = "; ".join(f"{user} in {arm}: {reason}" for user, arm, reason in sorted(failed))
    return Check("failures (one device was killed)", "none", said or "none", good)


def _unshared(sides: Sides) -> Check:
    """Texts of records that were not shared, searched in every file of the server."""
    shared = {
        line["user"]: line["records"]
        for line in jsonlines.read(sides.deployed.path / "shares.jsonl")
    }
    records = {
        user: [pair.input for pair in device_folder.read(own).history.pairs]
        for user, own in sides.devices.items()
    }
    content = b"\n".join(
        path.read_bytes() for path in sorted(_server(sides).rglob("*")) if path.is_file()
    )
    found = {
        user: sum(json.dumps(text)[1:-1].encode() in content for text in texts)
        for user, texts in records.items()
    }
    most = {user: shared.get(user, 0) for user in records}
    return Check(
        "records whose text lies with the server",
        f"{sum(map(len, records.values()))} in all",
        f"{sum(found.values())}, shared were {sum(most.values())}",
        all(found[user] <= most[user] < len(records[user]) for user in records),
    )


def _server(sides: Sides) -> Path:
    """The folder of everything that the server has: cache and runs."""
    return sides.deployed.path.parent.parent


def _owed(sides: Sides, user: str, arm: str) -> bool:
    return (user, arm) == (sides.lost, sides.last_arm)


def _identity(row: Mapping[str, Any], without: Iterable[str]) -> str:
    kept = {key: value for key, value in row.items() if key not in without}
    for key in [key for key in kept if key.endswith("_seconds")]:
        del kept[key]
    return json.dumps(kept, sort_keys=True)


def _against(simulated: set[Any], deployed: set[Any]) -> str:
    if simulated == deployed:
        return f"{len(deployed)}, equal"
    missing, more = len(simulated - deployed), len(deployed - simulated)
    return f"{len(deployed)}: {missing} missing, {more} others"
