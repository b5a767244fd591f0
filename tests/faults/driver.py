"""``python -m tests.faults.driver ...``: the command line, with devices that are struck."""

from __future__ import annotations

from sim import __main__
from sim.run import engine, server

if __name__ == "__main__":
    engine.CLIENT_APP = "tests.faults.app:app"
    server.STALL_GRACE_S = 5.0  # a stopped process is ended sooner than in earnest
    __main__.run()
