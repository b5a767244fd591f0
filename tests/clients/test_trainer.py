"""A real device's trainer, as processes of its own: same replies, its owner alone, survived."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.supercore.task_identity import TaskIdentity

from clients import folder, private_socket, processes, trainer_client, watchdog
from clients.app import IDLE_KEY, app
from clients.download import bases_folder
from clients.policy import UNBOUNDED, Policy
from clients.trainer_protocol import ACCEPTED, OTHER_CODE, TREE, Job, Outcome, code_version
from conf.compose import compose
from lamp.records import Pair, Query, UserHistory
from protocol.codec import decode, encode
from protocol.messages import AdaptReply, AdaptRequest, AnswerReply, AnswerRequest
from protocol.settings import settings_from_json, settings_of, settings_to_json
from protocol.wire import serialise
from storage import atomic, jsonlines

ARM = "direct_ft"
BASE = "base0"
IDLE_S = 120.0
LONG_S = 120.0  # of patience: the machine may be busy


@pytest.fixture
def device() -> Iterator[Path]:
    """A device's folder of a short name; a trainer that a test leaves behind is ended by its id."""
    root = Path(tempfile.mkdtemp())  # pytest's own may be too long for a socket
    pairs = tuple(Pair(f"p{n}", f"text {n} about a bridge", f"title {n}") for n in range(3))
    question = "Generate a headline for the following article: a text"
    history = UserHistory("ana", (), pairs, (Query("q", question, "a title"),))
    task = settings_from_json(settings()).task
    policy = Policy(1.0, numbers="exact", task=task, bounds=UNBOUNDED)
    own = folder.create(root / "d", history, policy, b"k" * 32)
    yield own
    pid = private_socket.written_pid(own)
    if pid is not None and b"trainer" in command_line(pid):
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(root)


def command_line(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


@pytest.fixture
def trained(device: Path, qwen2_folder: Path) -> Path:
    """The device once it holds a base model."""
    with atomic.new_folder(bases_folder(device) / BASE, {"sha256": "00"}) as made:
        shutil.copytree(qwen2_folder, made, dirs_exist_ok=True)
    return device


@pytest.fixture
def start(device: Path) -> Callable[..., int]:
    """Start the device's trainer as a message does; returns its id."""

    def start(idle_s: float = IDLE_S) -> int:
        trainer_client._start(device, idle_s, LONG_S)
        pid = private_socket.written_pid(device)
        assert pid is not None
        return pid

    return start


def settings() -> str:
    words = ["task=lamp_4", "task.max_new_tokens=3", "qlora.compute_dtype=float32"]
    return settings_to_json(settings_of(compose([*words, "qlora.epochs=1", "qlora.cohort=1"])))


def adapt_request(**changes: object) -> AdaptRequest:
    request = AdaptRequest(
        arm=ARM, base_id=BASE, settings=settings(), seed=0, kept=(), extra_records=0
    )
    return replace(request, **changes)


def sent(own: Path, body: AdaptRequest | AnswerRequest, idle_s: object = IDLE_S) -> RecordDict:
    """The content of the reply, through Flower's own ClientApp."""
    return replied(own, body, idle_s).content


def failed(own: Path, body: AdaptRequest, idle_s: object = IDLE_S) -> str:
    """What leaves the device where the message fails."""
    return replied(own, body, idle_s).error.reason


def replied(own: Path, body: AdaptRequest | AnswerRequest, idle_s: object) -> Message:
    context = Context(
        run_id=1,
        node_id=1,
        node_config={"device-folder": str(own), IDLE_KEY: idle_s},
        state=RecordDict(),
        run_config={watchdog.LIMIT_KEY: 900.0},
    )
    TaskIdentity.task_id = TaskIdentity.run_id = 1
    TaskIdentity.node_id = SUPERLINK_NODE_ID
    message = Message(encode(body), dst_node_id=1, message_type=body.TYPE)
    message.metadata.__dict__["_message_id"] = "1"
    return app(message=message, context=context)


def ended(pid: int) -> bool:
    """Whether the process ends soon."""
    process = processes.of(pid)
    end = time.monotonic() + LONG_S
    while process.began and process.is_there():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def at_work(own: Path) -> None:
    """Wait until the base is loaded for a job: then the device notes how it works."""
    end = time.monotonic() + LONG_S
    while not (own / "settings.json").exists():
        assert time.monotonic() < end
        time.sleep(0.02)


def asked(own: Path, job: Job) -> bytes:
    """What a trainer says to a job at first."""
    connection = private_socket.connect(own, LONG_S)
    assert connection is not None
    with connection:
        private_socket.send(connection, job.to_bytes())
        return private_socket.receive(connection)


def timeless(reply: AdaptReply | AnswerReply) -> AdaptReply | AnswerReply:
    changes = {"seconds": 0.0, **({"epoch_seconds": ()} if hasattr(reply, "epoch_seconds") else {})}
    return replace(reply, **changes)


@pytest.mark.slow
@pytest.mark.long
def test_replies_and_adapter_are_those_of_a_process_per_message(trained, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(trained, other)
    answer = AnswerRequest(arm=ARM, base_id=BASE, settings=settings(), adapted=True)
    alone = [sent(other, body, idle_s=0) for body in (adapt_request(), answer)]
    assert not private_socket.folder_of(other).exists()  # 0: no trainer
    helped = [sent(trained, adapt_request())]
    pid = private_socket.written_pid(trained)
    helped.append(sent(trained, answer))
    assert private_socket.written_pid(trained) == pid != os.getpid()  # one for both
    for kind, one, two in zip((AdaptReply, AnswerReply), alone, helped, strict=True):
        assert timeless(decode(kind, one)) == timeless(decode(kind, two))
    files = [own / "adapters" / ARM / "adapter_model.safetensors" for own in (other, trained)]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.slow
@pytest.mark.long
def test_an_error_leaves_as_its_class_and_keeps_its_words_on_the_device(trained):
    (trained / "limits.json").write_text('{"memory_bytes": 1}')
    assert failed(trained, adapt_request()) == "ModelError"
    (kept,) = jsonlines.read(trained / "errors.jsonl")
    assert kept["text"].startswith("user ana: does not fit: memory")
    pid = private_socket.written_pid(trained)
    assert pid is not None
    (trained / "limits.json").unlink()  # the trainer goes on, and reads the folder every time
    assert decode(AdaptReply, sent(trained, adapt_request())).records == 3
    assert private_socket.written_pid(trained) == pid


@pytest.mark.slow
@pytest.mark.long
def test_a_killed_trainer_is_replaced(trained, start):
    first = start()
    os.kill(first, signal.SIGKILL)
    assert ended(first)
    assert decode(AdaptReply, sent(trained, adapt_request())).user_id == "ana"
    second = private_socket.written_pid(trained)
    assert second not in (None, first)


@pytest.mark.slow
@pytest.mark.long
def test_what_kills_the_trainer_at_work_is_done_in_the_messages_own_process(trained, start):
    pid = start()

    def kill() -> None:
        at_work(trained)
        os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    request = adapt_request(extra_records=300)  # long enough to be killed at
    assert decode(AdaptReply, sent(trained, request)).user_id == "ana"
    killer.join()
    assert ended(pid)


def test_a_hung_trainer_is_ended_and_another_one_takes_the_job(device, start, monkeypatch):
    first = start()
    os.kill(first, signal.SIGSTOP)
    monkeypatch.setattr(trainer_client, "ACCEPT_S", 0.5)
    connection = private_socket.connect(device, 0.5)
    with connection:
        job = Job(code_version(), "train.adapt", b"")
        assert not trainer_client._is_accepted(device, connection, job.to_bytes())
    assert ended(first)
    assert start() != first
    assert asked(device, job) == ACCEPTED


def test_socket_and_folder_are_the_owners_alone(device, start):
    start()
    private = private_socket.folder_of(device)
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    assert stat.S_IMODE((private / "socket").stat().st_mode) == 0o600
    private.chmod(0o755)
    with pytest.raises(Exception, match="its owner alone"):
        private_socket.connect(device, 1)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can try as somebody else")
@pytest.mark.parametrize("open_folder", [False, True])
def test_a_stranger_is_refused(open_folder):
    root = Path(tempfile.mkdtemp())  # pytest's own folders let no stranger near
    own = folder.create(root, UserHistory("ana", (), (), ()), Policy(0.5), b"k" * 32)
    try:
        trainer_client._start(own, IDLE_S, LONG_S)
        private = private_socket.folder_of(own)
        root.chmod(0o755)
        own.chmod(0o755)
        if open_folder:  # a careless owner: the trainer still looks who it is
            private.chmod(0o777)
            (private / "socket").chmod(0o777)
        script = (
            "import os, socket, sys\n"
            "os.setgid(65534); os.setuid(65534)\n"
            "s = socket.socket(socket.AF_UNIX); s.settimeout(20)\n"
            "try:\n    s.connect(sys.argv[1]); s.sendall(b'x' * 20); print(s.recv(1))\n"
            "except OSError as error:\n    print(type(error).__name__)\n"
        )
        command = [sys.executable, "-c", script, str(private / "socket")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        refusals = {"b''", "ConnectionResetError", "BrokenPipeError"}
        assert done.stdout.strip() in (refusals if open_folder else {"PermissionError"})
    finally:
        os.kill(private_socket.written_pid(own), signal.SIGTERM)
        shutil.rmtree(root, ignore_errors=True)


def test_it_ends_when_idle_and_leaves_no_socket(device, start):
    pid = start(idle_s=0.3)
    assert ended(pid)
    assert not (private_socket.folder_of(device) / "socket").exists()
    assert private_socket.connect(device, 1) is None


def test_it_ends_with_the_process_that_it_belongs_to(device):
    owner = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    words = [f"folder={device}", f"owner={owner.pid}", "detached=yes"]
    command = [sys.executable, "-m", "clients", "trainer", *words]
    try:
        done = subprocess.run(command, cwd=TREE, stdout=subprocess.PIPE, check=True)
        assert done.stdout == b"ready\n"
        pid = private_socket.written_pid(device)
        assert processes.of(pid).is_there()
    finally:
        owner.kill()
        owner.wait()
    assert ended(pid)


def test_it_ends_with_its_folder(device, start):
    pid = start()
    device.rename(device.parent / "gone")  # at once: the trainer looks every second
    assert ended(pid)
    assert not device.exists()


@pytest.mark.slow
@pytest.mark.long
def test_who_leaves_takes_the_work_along(trained, start):
    pid = start()
    job = Job(code_version(), "train.adapt", b"")
    connection = private_socket.connect(trained, LONG_S)
    with connection:
        content = serialise(encode(adapt_request(extra_records=3000)))
        private_socket.send(connection, replace(job, content=content).to_bytes())
        assert private_socket.receive(connection) == ACCEPTED
        at_work(trained)
    assert ended(pid)
    assert not (trained / "adapters").exists()


def test_a_message_that_overruns_takes_the_trainer_along():
    trainer = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    script = (
        "import sys\nfrom clients import watchdog\n"
        "with watchdog.ended_together(int(sys.argv[1])):\n"
        "    watchdog._exit('train.adapt', 1.0)\n"
    )
    command = [sys.executable, "-c", script, str(trainer.pid)]
    try:
        done = subprocess.run(command, cwd=TREE, capture_output=True, check=False)
        assert done.returncode == watchdog.EXIT_OVERRUN
        assert trainer.wait(LONG_S) == -signal.SIGKILL
    finally:
        trainer.kill()


def test_a_trainer_of_other_code_makes_room(device, start):
    pid = start()
    assert asked(device, Job("older", "train.adapt", b"")) == OTHER_CODE
    assert ended(pid)


def test_it_does_nothing_but_what_the_handlers_do(device, start):
    start()
    connection = private_socket.connect(device, LONG_S)
    with connection:
        private_socket.send(connection, Job(code_version(), "query.hello", b"").to_bytes())
        assert private_socket.receive(connection) == ACCEPTED
        outcome = Outcome.from_bytes(private_socket.receive(connection))
    assert (outcome.state, outcome.content) == ("refused", b"")
    assert type(outcome.refusal()).__name__ == outcome.error == "RunError"


def test_a_path_too_long_for_a_socket_is_replaced_by_a_short_private_one(tmp_path):
    own = tmp_path / ("x" * 120)
    own.mkdir()
    (own / "history.json").write_text(json.dumps({}))
    first = private_socket.listen(own)
    with first.bound:
        assert len(str(first.path)) < 100
        assert stat.S_IMODE(first.path.parent.stat().st_mode) == 0o700
        client = private_socket.connect(own, 5)
        accepted, _ = first.bound.accept()
        with client, accepted:
            private_socket.send(client, b"abc")
            assert private_socket.receive(accepted) == b"abc"
    again = private_socket.listen(own)  # after a kill: no second folder is left
    assert not first.path.parent.exists()
    again.close()
    assert not again.path.parent.exists()
    assert sorted(each.name for each in private_socket.folder_of(own).iterdir()) == []


def test_announcements_beyond_all_bounds_are_refused():
    one, other = socket.socketpair()
    with one, other:
        one.sendall((1 << 60).to_bytes(8, "big"))
        with pytest.raises(ConnectionError, match="at most"):
            private_socket.receive(other)


def test_what_is_no_number_of_seconds_is_refused(device):
    assert failed(device, adapt_request(), idle_s="soon") == "ConfigError"
    (kept,) = jsonlines.read(device / "errors.jsonl")
    assert kept["text"].startswith("node config trainer-idle-s: expected seconds")
