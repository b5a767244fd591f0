"""``python -m tests.faults.crash``: kill -9 of the driver at random points, then resume.

Every run starts with empty caches, so that the set-up, the base model and the augmentation can be
hit as well. The run that is gone on with has to equal an undisturbed one: answers, adaptations,
augmentation, adapters to the last byte, and the ledger without re-deliveries.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.faults import endpoint, runs

METHODS = "methods=[device,direct_ft,cdcda,fedavg,unified]"
SETTING = (METHODS, "users=4", "baselines.fedavg_rounds=2", "name=run", "resources.backend=inline")
LIMIT_S = 240.0
EARLY = 0.15  # so many of the points lie before the first line
EARLY_S = 4.0  # spread over so many seconds: set-up and base model


@dataclass(frozen=True)
class Outcome:
    """What became of one killed run."""

    point: float
    phase: str
    different: tuple[str, ...]
    twice: int

    @property
    def is_equal(self) -> bool:
        """Whether nothing was lost and nothing was done twice."""
        return not self.different and not self.twice


def main() -> int:
    """Kill, resume, compare, print a table; the status tells whether all were equal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcomes = crash(Path(folder), asked.points, asked.seed)
    print(f"{'killed at':>9}  {'phase':<24} resumed to")
    for outcome in outcomes:
        said = "equal results" if outcome.is_equal else f"OTHER {outcome.different or 'twice'}"
        print(f"{outcome.point:8.0%}   {outcome.phase:<24} {said}")
    equal = sum(outcome.is_equal for outcome in outcomes)
    print(f"{equal} of {len(outcomes)} resumed to equal results")
    return 0 if equal == len(outcomes) else 1


def crash(folder: Path, points: int, seed: int) -> list[Outcome]:
    """Kill one run at each of so many random points and resume it."""
    model = runs.write_models(folder / "model")
    with endpoint.serve() as served:
        reference = _undisturbed(folder / "reference", model, served.address)
        drawn = Random(seed)
        places = [(number + drawn.random()) / points for number in range(points)]
        return [
            _killed(folder / f"{number}", model, served.address, place, reference)
            for number, place in enumerate(places)
        ]


def _undisturbed(folder: Path, model: Path, address: str) -> Path:
    folder.mkdir(parents=True)
    process = runs.start(runs.words(model, folder, address, *SETTING), folder / "log")
    run = folder / "runs" / "run"
    if process.wait(LIMIT_S) != 0:
        raise RuntimeError((folder / "log").read_text())
    return run


def _killed(folder: Path, model: Path, address: str, place: float, reference: Path) -> Outcome:
    """Kill when ``place`` of what an undisturbed run writes down is there."""
    folder.mkdir(parents=True)
    process = runs.start(runs.words(model, folder, address, *SETTING), folder / "log")
    run = folder / "runs" / "run"
    _wait_for(run / "requested.json", process)
    _wait_until(place, run, process, reference)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    phase = _phase(run)
    resumed = runs.start(["resume", f"run={run}"], folder / "log")
    if resumed.wait(LIMIT_S) != 0:
        print((folder / "log").read_text(), file=sys.stderr)
        return Outcome(place, phase, ("exit status",), 0)
    found, expected = runs.results(run), runs.results(reference)
    different = tuple(name for name in expected if found[name] != expected[name])
    return Outcome(place, phase, different, runs.computed_twice(run))


def _wait_until(place: float, run: Path, process: subprocess.Popen[bytes], reference: Path) -> None:
    """Wait for that part of the lines; the first tenth is the time before there are any."""
    if place < EARLY:
        time.sleep(place / EARLY * EARLY_S)
        return
    number = int((place - EARLY) / (1 - EARLY) * _num_lines(reference))
    while process.poll() is None and _num_lines(run) < number:
        time.sleep(0.01)


def _num_lines(run: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in run.glob("*.jsonl"))


def _phase(run: Path) -> str:
    """What was finished last when the run was killed."""
    if not (run / "config.json").is_file():
        return "set-up"
    done = [f"{row['arm']} {row['phase']}".strip() for row in runs.rows(run, "rounds")]
    if (run / "finished.json").is_file():
        return "report or later"
    return f"after {done[-1]}" if done else "base model"


def _wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + LIMIT_S
    while not path.is_file():
        if time.monotonic() > end or process.poll() is not None:
            raise RuntimeError(f"{path.name} never came")
        time.sleep(0.02)


if __name__ == "__main__":
    sys.exit(main())
