"""What more users cost: ``python -m benchmarks.scale [users ...]``, each size a simulation on Ray.

Every user has as many records and queries as any other, and the network has random weights and the
size of the miniature device: it hardly ever ends an answer by itself, so a user is the same work at
every size. The arm ``device`` comes first; in it the processes import their libraries and load the
base, so that time per user, that of the arm ``direct_ft``, is without the start. Nothing is shared.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.material import make
from benchmarks.measure import RESULTS, Sheet, append
from conf.compose import compose
from conf.errors import RunError
from conf.schema import TransformerSize
from sim.report.charts import curves_figure
from sim.report.layout import Panel, Point, Series
from sim.report.pictures import save
from sim.run.placement import actors
from sim.statistics import Estimate
from storage import jsonlines

ROOT = Path(__file__).resolve().parent.parent
SIZES = (20, 100, 300, 1000)
NETWORK = TransformerSize(layers=2, width=64, heads=2, feed_forward=192)
PUBLIC = 40  # users beside the target users, at every size
RECORDS = 24
REFERENCE = 100  # ratios are taken against this many users, where they were measured
POLL_S = 0.2
MIB = 1 << 20
WARM_UP, MEASURED = "device", "direct_ft"


@dataclass(frozen=True, slots=True)
class Cost:
    """What one simulation took.

    Attributes:
        users: Its size.
        actors: Devices that worked at the same time.
        whole_s: Wall seconds of the process, from its start to its end.
        warm_up_s: Of the first arm, in which the processes come up.
        measured_s: Of the measured arm, from the first message to the last reply.
        own_s: The devices' own seconds in that arm, added up: training and answering.
        driver_bytes: Most resident memory of the driver.
        adapter_bytes: Adapters on disk.
        failed: Users with a failure.
    """

    users: int
    actors: int
    whole_s: float
    warm_up_s: float
    measured_s: float
    own_s: float
    driver_bytes: int
    adapter_bytes: int
    failed: int

    @property
    def per_user_s(self) -> float:
        """Wall seconds per user of the measured arm."""
        return self.measured_s / self.users

    @property
    def outside(self) -> float:
        """Share of the devices' places that was not training or answering."""
        return 1 - self.own_s / (self.actors * self.measured_s)

    @property
    def start_and_stop_s(self) -> float:
        """Wall seconds before, between and after the two arms."""
        return self.whole_s - self.warm_up_s - self.measured_s


def main(argv: Sequence[str]) -> int:
    """Run, print, append to RESULTS.md and draw."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("users", nargs="*", type=int, default=list(SIZES), help="sizes to run")
    parser.add_argument("--results", type=Path, default=RESULTS, help="Markdown file to append to")
    arguments = parser.parse_args(argv)
    if any(users < 1 for users in arguments.users):
        parser.error(f"expected sizes of at least one user, got {min(arguments.users)}")
    run(sorted(set(arguments.users)), arguments.results)
    return 0


def run(
    sizes: Sequence[int], results: Path, *, records: int = RECORDS, more: Sequence[str] = ()
) -> list[Cost]:
    """Simulate each size, one after the other; append the table and draw beside ``results``.

    Args:
        sizes: Users, ascending.
        results: Markdown file.
        records: Of each user.
        more: Further words for every run.

    Raises:
        RunError: If a simulation fails.
    """
    costs = []
    with tempfile.TemporaryDirectory() as name:
        material = make(Path(name), NETWORK, users=8, records=records)
        for users in sizes:
            words = _words(users, records, material.plain, Path(name))
            costs.append(simulated(users, [*words, *more], Path(name) / "runs" / f"users-{users}"))
            print(markdown_line(costs[-1]), flush=True)
    print(append("scale", [sheet(costs, records)], results), flush=True)
    save(chart(costs), results.with_name("scale.png"))
    return costs


def simulated(users: int, words: Sequence[str], folder: Path) -> Cost:
    """Run ``python -m sim`` and read what it took.

    Raises:
        RunError: If it fails.
    """
    started = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "sim", *words],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            driver_bytes = _watch(process)
        finally:
            process.terminate()
            process.wait()
        whole_s = time.perf_counter() - started
        if process.returncode:
            output.seek(0)
            said = output.read().decode("utf-8", "replace").strip().splitlines()
            raise RunError(
                f"scale: the run of {users} users ended with status {process.returncode}: "
                f"{said[-1] if said else 'it said nothing'}; run `python -m sim "
                f"{' '.join(words)}` to see why"
            )
    return _read(users, folder, whole_s, driver_bytes, actors(compose(words).resources))


def sheet(costs: Sequence[Cost], records: int) -> Sheet:
    """The table."""
    base = next((cost for cost in costs if cost.users == REFERENCE), costs[0])
    heads = (
        "users",
        "s per user",
        f"× {base.users} users",
        "outside the devices' work",
        "driver, MiB",
        f"× {base.users} users",
        "adapters on disk, MiB",
        "first arm, s",
        "start and stop, s",
        "failed",
    )
    setting = (
        f"`python -m sim methods=[{WARM_UP},{MEASURED}]`, {records} records and 10 queries each, "
        f"{NETWORK.layers} layers of width {NETWORK.width}, {costs[0].actors} devices at a time."
    )
    notes = (
        f"Time per user is that of the arm {MEASURED}. Outside the devices' work: what of it is "
        "neither training nor answering, an upper bound for Flower and Ray, as reading, encoding "
        "and saving count too. Start and stop: all before, between and after the two arms, from "
        "the imports to the report."
    )
    return Sheet(setting, heads, tuple(_row(cost, base) for cost in costs), notes)


def markdown_line(cost: Cost) -> str:
    """One size in words, as it is done."""
    return (
        f"{cost.users} users: {cost.per_user_s:.3f} s per user, driver "
        f"{cost.driver_bytes / MIB:.0f} MiB, {cost.whole_s:.0f} s in all"
    )


def chart(costs: Sequence[Cost]) -> Mapping[str, Any]:
    """Time per user and memory of the driver against the number of users."""
    panels = {
        "seconds per user": [cost.per_user_s for cost in costs],
        "peak memory of the driver, MiB": [cost.driver_bytes / MIB for cost in costs],
    }
    drawn = curves_figure(
        "scale",
        "Cost of more users",
        [
            Panel(title, "users", title, (Series(MEASURED, _points(costs, values)),), log=True)
            for title, values in panels.items()
        ],
    )
    assert drawn is not None  # there are points
    return drawn.spec


def _points(costs: Sequence[Cost], values: Sequence[float]) -> tuple[Point, ...]:
    return tuple(
        Point(cost.users, Estimate(value, None, None, ()))
        for cost, value in zip(costs, values, strict=True)
    )


def _words(users: int, records: int, model: Path, folder: Path) -> list[str]:
    return [
        "task=lamp_4",
        f"users={users}",
        f"methods=[{WARM_UP},{MEASURED}]",
        f"world.population={users + PUBLIC}",
        f"world.history_min={records}",
        f"world.history_max={records}",
        "model=qwen2.5",  # a model that is there, not one to be built
        *(f"model.{which}.path={model}" for which in ("cloud", "device", "nli")),
        "model.device.dtype=float32",
        "qlora.compute_dtype=float32",
        "qlora.base_max_records=64",
        "task.max_new_tokens=16",
        "evaluation.bootstrap=200",
        f"paths.cache={folder / 'cache'}",
        f"paths.runs={folder / 'runs'}",
        f"name=users-{users}",
    ]


def _watch(process: subprocess.Popen[bytes]) -> int:
    """Wait for the end; returns the most resident memory that the kernel noted, 0 if it tells none.

    The driver is the process itself; devices and Ray's services are others.
    """
    most = 0
    while process.poll() is None:
        most = max(most, _peak_bytes(process.pid))
        time.sleep(POLL_S)
    return most


def _peak_bytes(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:  # ended in the meantime, or no Linux
        return 0
    found = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(found[0]) * 1024 if found else 0


def _read(users: int, folder: Path, whole_s: float, driver_bytes: int, places: int) -> Cost:
    phases = {
        name: sum(row["seconds"] for row in _rows(folder, "rounds") if row["arm"] == name)
        for name in (WARM_UP, MEASURED)
    }
    trained = sum(r["seconds"] for r in _rows(folder, "adaptations") if r["arm"] == MEASURED)
    answered = {r["user"]: r["seconds"] for r in _rows(folder, "answers") if r["arm"] == MEASURED}
    return Cost(
        users=users,
        actors=places,
        whole_s=whole_s,
        warm_up_s=phases[WARM_UP],
        measured_s=phases[MEASURED],
        own_s=trained + sum(answered.values()),
        driver_bytes=driver_bytes,
        adapter_bytes=sum(
            path.stat().st_size for path in folder.glob("devices/*/adapters/**/*") if path.is_file()
        ),
        failed=len({row["user"] for row in _rows(folder, "failures")}),
    )


def _rows(folder: Path, name: str) -> list[dict[str, Any]]:
    return list(jsonlines.read(folder / f"{name}.jsonl"))


def _row(cost: Cost, base: Cost) -> tuple[str, ...]:
    return (
        str(cost.users),
        f"{cost.per_user_s:.3f}",
        f"{cost.per_user_s / base.per_user_s:.2f}",
        f"{cost.outside:.0%}",
        f"{cost.driver_bytes / MIB:.0f}" if cost.driver_bytes else "–",
        f"{cost.driver_bytes / base.driver_bytes:.2f}" if base.driver_bytes else "–",
        f"{cost.adapter_bytes / MIB:.1f}",
        f"{cost.warm_up_s:.1f}",
        f"{cost.start_and_stop_s:.1f}",
        str(cost.failed),
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
