"""A run from its set-up to its report, begun or gone on with."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.text import Text

from conf.errors import ConfigError
from conf.schema import CausalModelConfig, Config, NliModelConfig
from lamp.dataset import LampData
from sim import exit_status
from sim.folders import RunFolder, locked, new_run_folder
from sim.run.engine import set_environment, simulate
from sim.run.ledger_check import note_head
from sim.run.prepare import begin, check, server_inputs, set_up
from sim.run.progress import TerminalProgress
from sim.run.tracker import track_arms
from storage import atomic, jsonlines
from strategy.prompting import TEMPLATES

SHOWN_USERS = 10  # in the terminal; the report names all

S = TypeVar("S", str, str | None)
M = TypeVar("M", CausalModelConfig, NliModelConfig)


def start(config: Config, data: LampData, console: Console) -> int:
    """Begin a run and finish it.

    Args:
        config: The run, its paths absolute.
        data: What :func:`sim.run.prepare.check` read for it.
        console: Where progress and the report are shown.

    Returns:
        The exit status: :mod:`sim.exit_status`.

    Raises:
        RunError: If the run exists already.
    """
    folder = new_run_folder(config)
    with locked(folder):
        begin(config, folder)
        return _work(config, data, folder, console)


def go_on(config: Config, folder: RunFolder, console: Console) -> int:
    """Finish a run that was begun: what is done stays, what failed is tried again.

    Returns:
        The exit status, as for :func:`start`.

    Raises:
        RunError: If another process works on it.
    """
    set_environment()
    with locked(folder):
        if folder.finished.is_file() and not failed_users(folder):
            console.print(f"{folder.path.name} is finished; nothing was left to do")
            return _report(folder, console)
        data = None if folder.config.is_file() else check(config)
        return _work(config, data, folder, console)


def status_of(folder: RunFolder) -> int:
    """What a run's files say about how it ended."""
    if not failed_users(folder):
        return exit_status.OK
    anything = next(iter(jsonlines.read(folder.path / "answers.jsonl")), None)
    return exit_status.FAILED if anything is None else exit_status.PARTIAL


def failed_users(folder: RunFolder) -> set[str]:
    """Users with at least one message without a good reply, or without augmentation."""
    return {row["user"] for row in jsonlines.read(folder.path / "failures.jsonl")}


def _work(config: Config, data: LampData | None, folder: RunFolder, console: Console) -> int:
    """Set up where ``data`` is given, simulate what is left, report."""
    started = time.perf_counter()
    progress = TerminalProgress(console)
    console.print(_headline(config))
    try:
        if data is not None:
            set_up(config, data, folder, progress)
        with track_arms(config.trackers, folder.path) as on_arm:
            simulate(folder, server_inputs(folder), progress, on_arm)
        if config.privacy.canaries:
            from sim.leakage.audit import audit

            audit(folder, progress)
        done = {"failed": sorted(failed_users(folder)), "ledger": note_head(folder)}
        atomic.write_json(folder.finished, done)
        status = _report(folder, console)
    except ConfigError:
        raise  # another attempt would be refused too
    except BaseException:
        print(f"go on with: python -m sim resume run={folder.path}", file=sys.stderr)
        raise
    console.print(f"\n{time.perf_counter() - started:.0f} s; all files in {folder.path}")
    return status


def _report(folder: RunFolder, console: Console) -> int:
    from sim.report.report import show, write_report

    for results in write_report([folder.path]):
        show(results, console)
    failed, status = sorted(failed_users(folder)), status_of(folder)
    if failed:
        named = ", ".join(failed[:SHOWN_USERS]) + (" ..." if len(failed) > SHOWN_USERS else "")
        console.print(
            f"{len(failed)} users failed (exit status {status}): {named}\n"
            f"python -m sim resume run={folder.path.name} tries them again",
        )
    return status


def _headline(config: Config) -> Text:
    return Text.assemble(
        (config.task.name, "bold"),
        f" on {config.data}: {config.users} users, {', '.join(config.methods)}; "
        f"models {config.model.name}, seed {config.seed}",
    )


def with_absolute_paths(config: Config) -> Config:
    """The configuration with every file and folder from the root: a resume may start elsewhere.

    What is no file here (a hub name, "auto", "built") stays as it is.
    """
    model, build = config.model, config.model.build
    models = {name: _from_root(getattr(model, name)) for name in ("cloud", "device", "nli")}
    models["nli"] = replace(models["nli"], nli_data=_found(model.nli.nli_data))
    return replace(
        config,
        paths=replace(
            config.paths, cache=_absolute(config.paths.cache), runs=_absolute(config.paths.runs)
        ),
        data=config.data if config.data == "miniature" else _absolute(config.data),
        plugins=tuple(map(_absolute, config.plugins)),
        privacy=replace(config.privacy, csv=_found(config.privacy.csv)),
        filters=replace(
            config.filters, review=config.filters.review and _absolute(config.filters.review)
        ),
        stream=replace(config.stream, lexicons=_found(config.stream.lexicons)),
        evaluation=replace(config.evaluation, bertscore=_found(config.evaluation.bertscore)),
        augmenter=replace(
            config.augmenter,
            models=tuple(map(_from_root, config.augmenter.models)),
            prompt=_template(config.augmenter.prompt),
            file=_found(config.augmenter.file),
        ),
        model=replace(
            model, **models, build=build and replace(build, nli_data=_found(build.nli_data))
        ),
    )


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())


def _found(path: S) -> S:
    if not path or path in ("auto", "built", "world"):  # words of ours, whatever lies here
        return path
    return _absolute(path) if Path(path).expanduser().exists() else path


def _template(prompt: str) -> str:
    return prompt if prompt in TEMPLATES else _found(prompt)


def _from_root(model: M) -> M:
    return replace(model, path=_found(model.path))
