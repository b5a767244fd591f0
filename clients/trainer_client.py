"""Asking a real device's trainer to do a message's work, and starting it when there is none.

Whatever happens to the trainer costs time and nothing else: one that is dead, hangs or runs other
code is replaced, and when it fails at the work the message's own process does it. What the work
itself refuses is raised here as it was raised there.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO

from flwr.app import RecordDict

from clients import private_socket
from clients.trainer import READY
from clients.trainer_protocol import ACCEPTED, TREE, Job, Outcome, code_version
from clients.watchdog import ended_together
from conf.errors import RunError
from protocol.wire import deserialise, serialise

IDLE_S = 300.0
START_S = 60.0
ACCEPT_S = 30.0  # at once, but for a machine that is busy importing
TRIES = 2

_log = logging.getLogger(__name__)


def ask(
    own: Path, kind: str, content: RecordDict, idle_s: float, limit_s: float
) -> RecordDict | None:
    """Have the trainer of the device with the folder ``own`` handle a message.

    Args:
        own: The device's folder.
        kind: Type of the message.
        content: Its content.
        idle_s: Seconds without work after which a trainer that is started here ends.
        limit_s: The message's limit; waiting for the trainer itself takes a quarter at most.

    Returns:
        The reply's content; None if the work is to be done in this process.

    Raises:
        CdcdaError: What the work refuses.
    """
    job = Job(code_version(), kind, serialise(content)).to_bytes()
    if len(job) > private_socket.MAX_BYTES:
        return None
    outcome = _tried(own, job, idle_s, limit_s / 4)
    if outcome is None or outcome.state == "failed":
        _log.warning("%s: the trainer did not do it; this process does", kind)
        return None
    if outcome.state == "refused":
        raise outcome.refusal()
    return deserialise(outcome.content)


def _tried(own: Path, job: bytes, idle_s: float, patience_s: float) -> Outcome | None:
    for _ in range(TRIES):
        try:
            connection = _connection(own, idle_s, patience_s)
        except (RunError, OSError) as error:
            _log.warning("trainer: %s", error)
            return None
        if connection is None:
            return None
        with connection:
            if _is_accepted(own, connection, job):
                return _outcome(own, connection)
    return None


def _connection(own: Path, idle_s: float, patience_s: float) -> socket.socket | None:
    timeout_s = min(ACCEPT_S, patience_s)
    running = private_socket.connect(own, timeout_s)
    if running is None:
        _start(own, idle_s, min(START_S, patience_s))
        running = private_socket.connect(own, timeout_s)
    return running


def _is_accepted(own: Path, connection: socket.socket, job: bytes) -> bool:
    """Whether the trainer takes the job; one that hangs is ended."""
    try:
        private_socket.send(connection, job)
        return private_socket.receive(connection) == ACCEPTED
    except TimeoutError:
        pid = private_socket.listener_pid(own, connection)
        _log.warning("trainer: it hangs; ending process %s", pid)
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    except (ConnectionError, BrokenPipeError):
        pass
    return False


def _outcome(own: Path, connection: socket.socket) -> Outcome | None:
    """Wait as long as the message may take; its watchdog ends the trainer too."""
    connection.settimeout(None)
    pid = private_socket.listener_pid(own, connection)
    try:
        if pid is None:
            return Outcome.from_bytes(private_socket.receive(connection))
        with ended_together(pid):
            return Outcome.from_bytes(private_socket.receive(connection))
    except ConnectionError:  # killed at work, for want of memory perhaps
        return None


def _start(own: Path, idle_s: float, timeout_s: float) -> None:
    """Start a trainer that outlives this process and ends with the one that started this."""
    words = [f"folder={own}", f"idle_s={idle_s:g}", f"owner={os.getppid()}", "detached=yes"]
    if os.getppid() == 1:  # nobody's child: idleness alone ends it
        words = [word for word in words if not word.startswith("owner=")]
    log = private_socket.make_folder(own) / "log"
    with (
        log.open("wb") as said,
        subprocess.Popen(
            [sys.executable, "-m", "clients", "trainer", *words],
            cwd=TREE,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=said,
            start_new_session=True,
        ) as starter,  # it ends as soon as it has left the trainer behind
    ):
        if not _says_ready(starter.stdout, timeout_s):
            starter.kill()
            _log.warning("trainer: it did not come up; see %s/trainer/log", own.name)


def _says_ready(output: IO[bytes] | None, timeout_s: float) -> bool:
    if output is None:
        return False
    said, _, _ = select.select([output], [], [], timeout_s)
    return bool(said) and os.read(output.fileno(), len(READY)) == READY
