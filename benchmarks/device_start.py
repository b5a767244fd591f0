"""What a message costs on a real device besides its work, with and without the local trainer.

In Flower's deployment engine every message gets a process of its own. Such a process is started
here as Flower starts it, but without Flower's own part (fetching message and code, posting the
reply), which is the same both ways. Counted are seconds of processor time, of the process and what
its trainer spent meanwhile, so that other work on the machine does not count; wall time beside.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flwr.app import Context, Message, RecordDict

from clients import private_socket
from conf.schema import TransformerSize
from protocol.codec import encode
from protocol.messages import AdaptRequest, AnswerRequest
from protocol.settings import DeviceSettings, settings_of, settings_to_json
from protocol.wire import deserialise, serialise

if TYPE_CHECKING:
    from benchmarks.measure import Sheet

ROOT = Path(__file__).resolve().parents[1]
SIZE = TransformerSize(layers=4, width=128, heads=2, feed_forward=384)
HALF_BILLION = TransformerSize(layers=24, width=896, heads=14, feed_forward=4864)
IDLE_S, LIMIT_S = 600.0, 3600.0
ARM, BASE = "direct_ft", "base0"
HEADS = ("message", "way", "Flower and ours", "PyTorch and others", "M_base", "work", "all", "wall")


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds of one message.

    Attributes:
        parts: Processor time of starting, of importing the model libraries, of loading the base
            and of the work; only the last one where a trainer has the rest.
        trainer: Processor time that the trainer spent.
        wall: Wall time of everything.
    """

    parts: tuple[float, ...]
    trainer: float
    wall: float

    @property
    def all(self) -> float:
        """Processor time of everything."""
        return sum(self.parts) + self.trainer


def run(*, size: TransformerSize = SIZE, records: int = 20, queries: int = 5) -> list[Sheet]:
    """Measure adapting and answering, each in a process of its own and with a trainer."""
    from benchmarks.measure import Sheet

    with tempfile.TemporaryDirectory() as name:
        own, settings = make_device(Path(name), size, records, queries)
        rows = [row for way in (_alone, _helped) for row in way(own, settings)]
    setting = (
        f"{size.layers} layers of width {size.width} in NF4, {settings.qlora.compute_dtype}; "
        f"{records} records, {settings.qlora.epochs} epochs, {queries} queries. Seconds of "
        "processor time, 1 thread; with a trainer those of both processes."
    )
    return [Sheet(setting, HEADS, tuple(rows))]


def make_device(
    folder: Path, size: TransformerSize, records: int, queries: int
) -> tuple[Path, DeviceSettings]:
    """Set up a real device that holds a base model in NF4 with random weights."""
    from benchmarks.material import make
    from clients import download
    from clients import folder as device_folder
    from sim.run.provision import policy_of
    from storage import atomic

    material = make(folder, size, users=1, records=records)
    settings = settings_of(material.config)
    settings = replace(
        settings,
        qlora=replace(settings.qlora, compute_dtype="float32", cohort=1, epochs=2),
        task=replace(settings.task, max_new_tokens=16),
    )
    user = material.data.targets[0]
    history = replace(user, queries=user.queries[:queries])
    policy = policy_of(replace(material.config, task=settings.task), 0.5)
    own = device_folder.create(folder / "device", history, policy, b"k" * 32)
    with atomic.new_folder(download.bases_folder(own) / BASE, {"sha256": "00"}) as made:
        shutil.copytree(material.quantised(settings.qlora), made, dirs_exist_ok=True)
    return own, settings


def _alone(own: Path, settings: DeviceSettings) -> Iterator[tuple[str, ...]]:
    for request in _requests(settings):
        yield _row(request, "own process", _message(own, request, settings, idle_s=0.0))


def _helped(own: Path, settings: DeviceSettings) -> Iterator[tuple[str, ...]]:
    adapt, answer = _requests(settings)
    with _trainer_ended(own):
        yield _row(adapt, "trainer, started by it", _message(own, adapt, settings, IDLE_S))
        for request in (adapt, answer):
            yield _row(request, "trainer, there", _message(own, request, settings, IDLE_S))


def _requests(settings: DeviceSettings) -> tuple[AdaptRequest, AnswerRequest]:
    written = settings_to_json(settings)
    adapt = AdaptRequest(arm=ARM, base_id=BASE, settings=written, seed=0, kept=(), extra_records=0)
    return adapt, AnswerRequest(arm=ARM, base_id=BASE, settings=written, adapted=True)


def _message(
    own: Path, request: AdaptRequest | AnswerRequest, settings: DeviceSettings, idle_s: float
) -> Spent:
    """Handle one message in a process of its own, as Flower does."""
    order = {
        "own": str(own),
        "kind": request.TYPE,
        "idle_s": idle_s,
        "content": serialise(encode(request)).hex(),
        "settings": settings_to_json(settings),
    }
    before, started = _trainer_seconds(own), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.device_start"],
        input=json.dumps(order),
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    wall = time.perf_counter() - started
    parts = tuple(json.loads(done.stdout.splitlines()[-1]))
    return Spent(parts, _trainer_seconds(own) - before, wall)


def handle_one() -> None:
    """Handle the message that stands on the input; print the processor time of each part."""
    order = json.load(sys.stdin)
    from clients.app import app  # Flower and what a message needs at least

    clock = [0.0, time.process_time()]
    if not order["idle_s"]:
        clock += _load(Path(order["own"]), order["settings"])
    app(message=_as_message(order), context=_context(order))
    clock.append(time.process_time())
    print(json.dumps([later - sooner for sooner, later in pairwise(clock)]))


def _load(own: Path, written: str) -> list[float]:
    """What the handlers would load, one after the other; they find it loaded then."""
    from protocol.settings import settings_from_json

    settings = settings_from_json(written)
    from clients import base, cohorts, download  # noqa: F401

    imported = time.process_time()
    base.load(download.bases_folder(own) / BASE, settings.qlora, settings.torch_threads)
    return [imported, time.process_time()]


def _as_message(order: dict[str, Any]) -> Message:
    from flwr.common.constant import SUPERLINK_NODE_ID
    from flwr.supercore.task_identity import TaskIdentity

    TaskIdentity.task_id = TaskIdentity.run_id = 1
    TaskIdentity.node_id = SUPERLINK_NODE_ID
    content = deserialise(bytes.fromhex(order["content"]))
    message = Message(content, dst_node_id=1, message_type=order["kind"])
    message.metadata.__dict__["_message_id"] = "1"
    return message


def _context(order: dict[str, Any]) -> Context:
    return Context(
        run_id=1,
        node_id=1,
        node_config={"device-folder": order["own"], "trainer-idle-s": order["idle_s"]},
        state=RecordDict(),
        run_config={"client-limit-s": LIMIT_S},
    )


def _trainer_seconds(own: Path) -> float:
    """Processor time that the device's trainer spent so far; 0 without one."""
    pid = private_socket.written_pid(own)
    if pid is None:
        return 0.0
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def _trainer_ended(own: Path) -> Iterator[None]:
    """End the device's trainer when all is measured."""
    try:
        yield
    finally:
        pid = private_socket.written_pid(own)
        if pid is not None:
            os.kill(pid, signal.SIGTERM)


def _row(request: AdaptRequest | AnswerRequest, way: str, spent: Spent) -> tuple[str, ...]:
    start, *loading, work = spent.parts
    shown = [f"{each:.2f}" for each in loading] or ["", ""]
    work = work if loading else work + spent.trainer
    cells = (f"{start:.2f}", *shown, f"{work:.2f}")
    return (request.TYPE, way, *cells, f"{spent.all:.2f}", f"{spent.wall:.1f}")


if __name__ == "__main__":
    handle_one()
