"""A device that hangs is ended: nothing else in the simulation would ever end it.

The limit is the server's or the device's own, whichever is shorter. The clock starts with the
execution of the message, not with its sending. The process exits, Ray starts a fresh actor, and the
server counts the message as failed or sends it again. In the deployment engine a process serves one
message, so the same holds; a trainer that works for the message is ended together with its process.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable

from clients import paths, policy
from conf.errors import ProtocolError

EXIT_OVERRUN = 75
LIMIT_KEY = "client-limit-s"
DEFAULT_S = 900.0  # for a server that says nothing, as in Flower's own simulation
MAX_S = threading.TIMEOUT_MAX
_WORKERS: set[int] = set()  # ids of processes that work for this one's message


def watchdog(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Flower mod: end this process when one message takes longer than the run's limit."""
    limit_s = limit_of(context)
    timer = threading.Timer(limit_s, _exit, args=(message.metadata.message_type, limit_s))
    timer.daemon = True
    timer.start()
    try:
        return call_next(message, context)
    finally:
        timer.cancel()


def limit_of(context: Context) -> float:
    """Seconds that a message may take: what the server grants, at most what the device does.

    Raises:
        ProtocolError: If the server grants no such number.
        DataError: If the device's policy cannot be read.
    """
    asked = context.run_config.get(LIMIT_KEY, DEFAULT_S)
    if isinstance(asked, bool) or not isinstance(asked, int | float) or not 0 < asked < MAX_S:
        raise ProtocolError(f"run config {LIMIT_KEY}: expected seconds, got {type(asked).__name__}")
    own = policy.read(paths.own_folder(context)).limit_s
    return float(asked) if own is None else min(float(asked), own)


@contextmanager
def ended_together(pid: int) -> Iterator[None]:
    """While the block runs, an overrun ends the process ``pid`` as well."""
    _WORKERS.add(pid)
    try:
        yield
    finally:
        _WORKERS.discard(pid)


def _exit(message_type: str, limit_s: float) -> None:
    os.write(2, f"device: {message_type} took more than {limit_s:g} s; ending\n".encode())
    for pid in tuple(_WORKERS):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    os._exit(EXIT_OVERRUN)
