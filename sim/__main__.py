"""Entry point of ``python -m sim``."""

from __future__ import annotations

import os
import sys
import threading
import traceback

from sim import exit_status
from sim.cli import main


def run() -> None:
    """Run the command line and leave, also when the server's thread would go on working.

    Flower cannot stop a ServerApp's thread: after Ctrl-C or a failed start of Ray it would train or
    wait on, and the process with it. Nothing is lost by leaving: every file is written atomically.
    """
    try:
        status = main(sys.argv[1:])
    except Exception:
        traceback.print_exc()
        status = exit_status.FAILED
    sys.stdout.flush()
    sys.stderr.flush()
    if any(_holds_the_process(thread) for thread in threading.enumerate()):
        os._exit(status)
    sys.exit(status)


def _holds_the_process(thread: threading.Thread) -> bool:
    return thread is not threading.main_thread() and not thread.daemon


if __name__ == "__main__":
    run()
