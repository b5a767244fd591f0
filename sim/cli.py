"""The command line: ``python -m sim [command] [options] [group=name ...] [key=value ...]``.

A small dispatcher in front of Hydra's compose API (docs/adr/0002): the first bare word chooses a
command, everything else goes to it. Errors that the project raises on purpose end in one line on
stderr; anything else is a bug and keeps its traceback.

Exit status (:mod:`sim.exit_status`): 0 all well, 1 the run failed, 2 configuration, data or usage
are refused, 3 some users failed or went without augmentation, 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from conf.errors import CdcdaError, ConfigError, DataError
from conf.names import suggestion
from sim import exit_status
from sim.commands import COMMANDS, DEFAULT, load
from sim.run.sweep import expand_all, name_apart
from sim.terminal import forgive_encoding
from storage.text_files import printable

HELP = ("-h", "--help")
DRY_RUN = ("--dry-run",)
MULTIRUN = ("-m", "--multirun")
DEBUG = ("--debug",)


def main(argv: Sequence[str]) -> int:
    """Run one command line.

    Args:
        argv: Words after ``python -m sim``.

    Returns:
        The exit status.
    """
    forgive_encoding()
    debug, words = _take(argv, DEBUG)
    try:
        return _dispatch(words)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return exit_status.INTERRUPTED
    except CdcdaError as error:
        if debug:
            raise
        return _report_error(error)


def _dispatch(argv: Sequence[str]) -> int:
    name, words = _split_command(argv)
    if name != DEFAULT:
        return load(name)(words)
    asks_help, words = _take(words, HELP)
    if asks_help:
        from sim.help import print_help

        print_help(topics=[word for word in words if word.replace(".", "").isidentifier()])
        return exit_status.OK
    return _run(words)


def _split_command(argv: Sequence[str]) -> tuple[str, list[str]]:
    """Tell the command from its words; a first word with ``=`` or ``-`` belongs to ``run``."""
    if not argv or "=" in argv[0] or argv[0].startswith(("-", "+", "~")):
        return DEFAULT, list(argv)
    if argv[0] not in COMMANDS:
        raise ConfigError(f"{argv[0]}: no such command. {suggestion(argv[0], COMMANDS)}")
    return argv[0], list(argv[1:])


def _run(words: Sequence[str]) -> int:
    dry_run, words = _take(words, DRY_RUN)
    multirun, words = _take(words, MULTIRUN)
    for word in words:
        if word.startswith("-"):
            known = (*DRY_RUN, *MULTIRUN, *DEBUG, *HELP)
            raise ConfigError(f"{word}: no such option. {suggestion(word, known)}")
    run = load(DEFAULT)
    runs = expand_all(words, multirun)
    if len(runs) == 1:
        return run(runs[0], dry_run=dry_run)
    if dry_run:
        return _run_all(runs, run, dry_run)
    sweep = name_apart(runs)
    status = _run_all(sweep.runs, run, dry_run)
    if status in (exit_status.OK, exit_status.PARTIAL):
        load("report")([f"run={sweep.folder}"])
    return status


def _run_all(runs: Sequence[list[str]], run: Callable[..., int], dry_run: bool) -> int:
    """Run one after the other; a failed run is reported and the next one starts."""
    statuses = []
    for number, words in enumerate(runs, start=1):
        print(f"[{number}/{len(runs)}] {' '.join(words)}", flush=True)
        try:
            statuses.append(run(words, dry_run=dry_run))
        except CdcdaError as error:
            statuses.append(_report_error(error))
    failed = [status for status in statuses if status != exit_status.OK]
    if failed:
        print(f"{len(failed)} of {len(runs)} runs did not end well", file=sys.stderr)
    return min(failed, default=exit_status.OK)


def _report_error(error: CdcdaError) -> int:
    lines = map(printable, str(error).split("\n"))
    print(f"error: {chr(10).join(lines)}", file=sys.stderr)
    refused = isinstance(error, ConfigError | DataError)
    return exit_status.REFUSED if refused else exit_status.FAILED


def _take(words: Sequence[str], flags: Sequence[str]) -> tuple[bool, list[str]]:
    """Tell whether one of ``flags`` is among ``words``, and return the words without them."""
    return any(word in flags for word in words), [word for word in words if word not in flags]
