"""``python -m clients trainer folder=...``: a process that keeps a real device's base in memory.

Flower starts a process per message on a device, which would import PyTorch and load M_base each
time. This one takes the work over a socket that its owner alone may open
(:mod:`clients.private_socket`) and runs the very same handlers, which decide as they always do. It
ends when it was idle for long, when the process that it belongs to is gone, when the device's
folder is gone, and when whoever asked goes away before the work is done.
"""

from __future__ import annotations

import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from clients import private_socket, processes
from clients.private_socket import Listener
from clients.processes import Process
from clients.trainer_protocol import ACCEPTED, OTHER_CODE, Job, Outcome, code_version
from conf.errors import CdcdaError, ConfigError, RunError
from storage.locks import locked

USAGE = "usage: python -m clients trainer folder=<device folder> [idle_s=<seconds>]"
READY = b"ready\n"
POLL_S = 1.0
RECEIVE_S = 60.0
LOCK_S = 10.0  # another one may be on its way to the end
EXIT_ABANDONED = 76


@dataclass(frozen=True, slots=True)
class Settings:
    """How one trainer runs.

    Attributes:
        own: The device's folder.
        idle_s: Seconds without work after which it ends; 0 for never.
        owner: The process that it belongs to and ends with; None for none.
        detached: Whether it leaves the process that starts it and says on its output when it is
            ready.
    """

    own: Path
    idle_s: float = 0.0
    owner: Process | None = None
    detached: bool = False


def main(argv: Sequence[str]) -> int:
    """Run a trainer; the exit status is 0, or 2 with one line on stderr."""
    try:
        settings = _settings(argv)
        with suppress(KeyboardInterrupt):
            run(settings)
    except CdcdaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def run(settings: Settings) -> None:
    """Listen and work until it is time to end.

    Raises:
        RunError: If the device has a trainer already.
    """
    private = private_socket.make_folder(settings.own)
    if settings.detached:
        _detach()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with _locked(private / "lock", settings.own.name):
        listener = private_socket.listen(settings.own)
        try:
            _Trainer(settings, listener).work()
        finally:
            listener.close()


def _settings(argv: Sequence[str]) -> Settings:
    values = dict(word.partition("=")[::2] for word in argv)
    unknown = set(values) - {"folder", "idle_s", "owner", "detached"}
    if unknown or not (Path(values.get("folder", "")) / "history.json").is_file():
        raise ConfigError(USAGE)
    try:
        owner = processes.of(int(values["owner"])) if "owner" in values else None
        idle_s = float(values.get("idle_s", 0))
    except ValueError as error:
        raise ConfigError(USAGE) from error
    own = Path(values["folder"]).absolute()
    return Settings(own, idle_s, owner, detached="detached" in values)


def _detach() -> None:
    """Go on as a process that nobody waits for; no thread runs yet."""
    if os.fork():
        os._exit(0)
    os.setsid()


@contextmanager
def _locked(path: Path, name: str) -> Iterator[None]:
    with ExitStack() as held:
        try:
            held.enter_context(locked(path, LOCK_S))
        except TimeoutError as error:
            raise RunError(f"{name}: this device has a trainer already") from error
        yield


@dataclass(slots=True)
class _Asked:
    """A job and who waits for it.

    Attributes:
        job: The job.
        connection: Where the outcome goes.
        state: How far it is.
        changing: Held while the state changes.
    """

    job: Job
    connection: socket.socket
    state: str = "waiting"
    changing: threading.Lock = field(default_factory=threading.Lock)

    def begin(self) -> bool:
        """Whether the work is still wanted; from now on who leaves ends this process."""
        with self.changing:
            wanted = self.state == "waiting"
            self.state = "working" if wanted else self.state
        return wanted

    def tell(self, outcome: Outcome) -> None:
        """Send the outcome; who left in the meantime needs none."""
        with self.changing:
            self.state = "told"
        with suppress(OSError):
            private_socket.send(self.connection, outcome.to_bytes())

    def abandon(self) -> None:
        """Nobody waits any more: what is under way ends as Flower's own process would, at once."""
        with self.changing:
            if self.state == "working":
                _say(f"who asked for {self.job.kind} is gone; ending")
                os._exit(EXIT_ABANDONED)
            self.state = "told"


class _Trainer:
    """Takes jobs in threads and does them one after the other in the main thread."""

    def __init__(self, settings: Settings, listener: Listener) -> None:
        self._settings = settings
        self._listener = listener
        self._code = code_version()
        self._asked: queue.SimpleQueue[_Asked | None] = queue.SimpleQueue()

    def work(self) -> None:
        """Work until it is time to end."""
        for task in (self._accept, self._watch):
            threading.Thread(target=task, daemon=True).start()
        if self._settings.detached:
            _report_ready(private_socket.folder_of(self._settings.own) / "log")
        idle_s = self._settings.idle_s or None
        while True:
            try:
                asked = self._asked.get(timeout=idle_s)
            except queue.Empty:
                return
            if asked is None or not self._does(asked):
                return

    def _does(self, asked: _Asked) -> bool:
        """Do a job; returns whether this process can go on afterwards."""
        if not asked.begin():
            return True
        outcome = _outcome(self._settings.own, asked.job)
        if outcome.error:
            _say(f"{asked.job.kind}: {outcome.error}")
        asked.tell(outcome)
        return outcome.state != "failed"

    def _accept(self) -> None:
        with suppress(OSError):  # closed: this process is ending
            while True:
                connection, _ = self._listener.bound.accept()
                threading.Thread(target=self._receive, args=(connection,), daemon=True).start()

    def _receive(self, connection: socket.socket) -> None:
        with connection, suppress(OSError, ValueError, TypeError):
            if not private_socket.is_owners(connection):
                _say("somebody else knocked and was not let in")
                return
            connection.settimeout(RECEIVE_S)
            job = Job.from_bytes(private_socket.receive(connection))
            if job.code != self._code:
                _say("a message for other code came; ending")
                private_socket.send(connection, OTHER_CODE)
                self._asked.put(None)
                return
            private_socket.send(connection, ACCEPTED)
            self._wait(_Asked(job, connection))

    def _wait(self, asked: _Asked) -> None:
        """Queue a job and look whether who asked stays until it is told."""
        asked.connection.settimeout(None)
        self._asked.put(asked)
        try:
            asked.connection.recv(1)
        finally:
            asked.abandon()

    def _watch(self) -> None:
        """End at once when the owner or the folder is gone, even in the middle of work."""
        owner = self._settings.owner
        while (owner is None or owner.is_there()) and self._listener.is_there():
            time.sleep(POLL_S)
        _say("owner or folder is gone; ending")
        self._listener.close()
        os._exit(0)


def _outcome(own: Path, job: Job) -> Outcome:
    from clients.download import bases_folder
    from clients.handlers import HANDLERS, Place
    from protocol.codec import encode
    from protocol.wire import deserialise, serialise

    place = Place((own,), 0, bases_folder(own), real=True)
    try:
        handle = HANDLERS.get(job.kind)
        if handle is None:
            raise RunError(f"trainer: expected one of {', '.join(HANDLERS)}, got {job.kind[:40]!r}")
        reply = encode(handle(place, deserialise(job.content)))
        return Outcome("done", content=serialise(reply))
    except CdcdaError as error:
        return Outcome("refused", _known_class(error), str(error))
    except Exception as error:  # a library's: the state of this process is unknown now
        return Outcome("failed", type(error).__name__)


def _known_class(error: CdcdaError) -> str:
    """The nearest class of the error that :mod:`conf.errors` has; the server knows those."""
    return next(each.__name__ for each in type(error).__mro__ if each.__module__ == "conf.errors")


def _report_ready(log: Path) -> None:
    """Tell who started this process and keep no output of its open.

    The log is there before: who is told may remove the folder at once, and nothing may come after.
    """
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(1, READY)
    for number in (1, 2):
        os.dup2(output, number)
    os.close(output)


def _say(text: str) -> None:
    os.write(2, f"trainer: {text}\n".encode())
