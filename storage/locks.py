"""Locks between processes, on a file that stays; one that cannot be had says why and what to do."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from conf.errors import RunError
from storage.atomic import file_mode
from storage.writing import writing

POLL_S = 0.05
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextmanager
def locked(path: Path, timeout_s: float | None = None) -> Iterator[None]:
    """Hold the lock ``path``; the system gives it back when this process ends.

    Args:
        path: A file that is made where it is not there and never removed.
        timeout_s: Longest wait; None waits for as long as it takes.

    Raises:
        TimeoutError: If another process holds it for longer.
        RunError: If the file system has no locks.
    """
    with writing(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, file_mode(path.parent))
    try:
        _take(descriptor, path, timeout_s)
        yield
    finally:
        os.close(descriptor)  # gives the lock back


def taken(descriptor: int, path: Path, *, wait: bool) -> bool:
    """Take the lock of an open file; False where another process holds it and ``wait`` is off.

    Raises:
        RunError: If the file system has no locks.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        raise RunError(
            f"{path.parent.name}/{path.name}: cannot be locked ({error.strerror}); the file "
            "system has no locks (NFS without its lock daemon?), take a folder on another one"
        ) from error
    return True


def _take(descriptor: int, path: Path, timeout_s: float | None) -> None:
    if timeout_s is None:
        taken(descriptor, path, wait=True)
        return
    end = time.monotonic() + timeout_s
    while not taken(descriptor, path, wait=False):
        if time.monotonic() > end:
            raise TimeoutError(f"{path.name}: held by another process")
        time.sleep(POLL_S)
