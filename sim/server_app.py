r"""The ServerApp of the public route: ``flwr run .`` from the repository's root.

    flwr run . --stream --federation-config "num-supernodes=20" \
        --run-config 'overrides="task=lamp_4 users=20"'

It composes the configuration, sets the run up below the cache and runs the same experiment as
``python -m sim``; the report is written at the end. Relative paths count from the SuperLink's
folder.
"""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from clients.places import cache_folder, public_route_folder
from conf.compose import compose
from conf.schema import Config
from strategy.experiment import run_experiment
from strategy.progress import LoggedProgress

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Set up, run, report."""
    from sim.prepare import prepare, server_inputs
    from sim.report import write_report

    config = public_route_config(context)
    progress = LoggedProgress()
    folder = prepare(config, progress)
    run_experiment(grid, server_inputs(folder), progress)
    write_report([folder.path])


def public_route_config(context: Context) -> Config:
    """The configuration of a run that was started by ``flwr run``."""
    overrides = shlex.split(str(context.run_config.get("overrides", "")))
    config = compose(overrides)
    folder = public_route_folder(context)
    paths = replace(
        config.paths, cache=str(cache_folder(context.run_config)), runs=str(folder.parent)
    )
    return replace(config, paths=paths, name=folder.name, data=_absolute(config.data))


def _absolute(data: str) -> str:
    return data if data == "miniature" else str(Path(data).absolute())
