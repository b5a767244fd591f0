r"""The ServerApp of the public route: ``flwr run .`` from the repository's root.

    flwr run . --stream --federation-config "num-supernodes=20" \
        --run-config 'overrides="task=lamp_4 users=20"'

It composes the configuration, sets the run up below the cache and runs the same experiment as
``python -m sim``; the report is written at the end. Relative paths count from the SuperLink's
folder. With ``run-folder`` in the run config it works on a run that ``python -m sim engine=...``
has set up on the SuperLink's host, and that process reports.
"""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from clients.paths import cache_folder, public_route_folder
from conf.compose import compose
from conf.errors import CdcdaError
from conf.schema import Config
from sim.folders import RunFolder, served
from sim.run.progress_file import FileProgress
from sim.run.server import run_experiment
from strategy.progress import LoggedProgress

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run what was set up; where nothing was, set up, run, report."""
    from sim.report.report import write_report
    from sim.run.prepare import prepare, server_inputs

    if named := str(context.run_config.get("run-folder", "")):
        run_prepared(grid, RunFolder(Path(named)))
        return
    config = public_route_config(context)
    progress = LoggedProgress()
    folder = prepare(config, progress)
    inputs = server_inputs(folder)
    run_experiment(grid, inputs, progress)
    write_report([folder.path])


def run_prepared(grid: Grid, folder: RunFolder) -> None:
    """Run the experiment of ``folder`` and tell the process that waits for it."""
    from sim.run.prepare import server_inputs

    telling = FileProgress(folder)
    try:
        inputs = server_inputs(folder)
        with served(folder):
            run_experiment(grid, inputs, telling, telling.arm)
    except CdcdaError as error:
        telling.error(error)
        raise


def public_route_config(context: Context) -> Config:
    """The configuration of a run that was started by ``flwr run``."""
    overrides = shlex.split(str(context.run_config.get("overrides", "")))
    config = compose(overrides)
    folder = public_route_folder(context)
    paths = replace(
        config.paths, cache=str(cache_folder(context.run_config)), runs=str(folder.parent)
    )
    plugins = tuple(str(Path(each).absolute()) for each in config.plugins)
    data = _absolute(config.data)
    return replace(config, paths=paths, name=folder.name, data=data, plugins=plugins)


def _absolute(data: str) -> str:
    return data if data == "miniature" else str(Path(data).absolute())
