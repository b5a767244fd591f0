"""What was started is ended, and taken off the process table, whatever its threads do."""

from __future__ import annotations

import sys
import threading
import time

from sim.run.flower_processes import start
from sim.run.processes import alive

FIRST_THREAD_ENDS = """
import ctypes, threading, time
threading.Thread(target=time.sleep, args=({seconds},)).start()
ctypes.CDLL(None).pthread_exit(None)
"""


def test_a_process_has_ended_once_its_last_thread_has(tmp_path):
    """Its first thread may end before the others: it is a zombie then that nobody can reap yet."""
    code = FIRST_THREAD_ENDS.format(seconds=60)
    started = start(sys.executable, ["-c", code], tmp_path, cwd=tmp_path, name="child")
    try:
        end = time.monotonic() + 30
        while alive(started.pid) and time.monotonic() < end:
            time.sleep(0.01)
        assert started.process.poll() is None  # no process of its own, and not to be reaped
        killing = threading.Timer(0.5, started.process.kill)
        killing.start()
        started._wait(30)
        assert started.process.returncode is not None
    finally:
        started.kill()
