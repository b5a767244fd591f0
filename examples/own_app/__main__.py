"""Runs the example through Flower's simulation: ``python -m examples.own_app [key=value ...]``."""

from __future__ import annotations

import sys

from sim.run.engine import set_environment

NODES = 2


def main() -> None:
    """Start two virtual devices of the product's own ClientApp under the ServerApp beside this."""
    set_environment()  # before Flower and Ray read it
    from flwr.simulation import run_simulation

    from clients.app import app
    from examples.own_app.server_app import make_app

    run_simulation(
        server_app=make_app(sys.argv[1:]),
        client_app=app,
        num_supernodes=NODES,
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )


if __name__ == "__main__":
    main()
