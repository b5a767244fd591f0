"""A device that hangs is ended: nothing else in the simulation would ever end it.

The clock starts with the execution of the message, not with its sending. The process exits, Ray
starts a fresh actor, and the server counts the message as failed or sends it again. In the
deployment engine a process serves one message, so the same holds; a trainer that works for the
message is ended together with its process.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable

EXIT_OVERRUN = 75
LIMIT_KEY = "client-limit-s"
_WORKERS: set[int] = set()  # ids of processes that work for this one's message


def watchdog(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Flower mod: end this process when one message takes longer than the run's limit."""
    limit_s = float(context.run_config[LIMIT_KEY])
    timer = threading.Timer(limit_s, _exit, args=(message.metadata.message_type, limit_s))
    timer.daemon = True
    timer.start()
    try:
        return call_next(message, context)
    finally:
        timer.cancel()


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
