"""``python -m sim answer run=... user=... "query"``: ask one user's device, offline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from clients import folder as device_folder
from clients.asking import answer_with, newest_adapter
from clients.folder import Device
from conf.compose import from_json
from conf.errors import ConfigError, RunError
from protocol.settings import settings_of
from sim.folders import RunFolder, find_run
from sim.words import read_words, required
from strategy.base_model import bases_root

USAGE = (
    'usage: python -m sim answer run=<folder or name> user=<id> [arm=cdcda] "query"\n'
    "The query may be a whole prompt, or just the text, which then gets the task's own prompt."
)


def main(argv: Sequence[str]) -> int:
    """Answer one query with a stored adapter."""
    console = Console()
    if set(argv) & {"-h", "--help"}:
        console.print(USAGE, highlight=False)
        return 0
    values, words = read_words("answer", argv, ("run", "user", "arm", "runs"), free=True)
    if not words:
        raise ConfigError(f"answer: the query is missing\n{USAGE}")
    run = find_run(required("answer", values, "run", "runs/demo"), Path(values.get("runs", "runs")))
    device = find_device(run, required("answer", values, "user", "17"))
    console.print(answer(run, device, values.get("arm"), " ".join(words)), highlight=False)
    return 0


def answer(run: RunFolder, device: Device, arm: str | None, query: str) -> str:
    """Answer ``query`` on ``device`` with the adapter of ``arm`` (None: the last one trained)."""
    config = from_json(run.config.read_text(encoding="utf-8"))
    chosen, base_id = newest_adapter(device, arm)
    base_folder = bases_root(Path(config.paths.cache)) / base_id
    return answer_with(device, chosen, base_folder, settings_of(config), query)


def find_device(run: RunFolder, user: str) -> Device:
    """The device of ``user`` in ``run``.

    Raises:
        RunError: If the run has no such user; the message names some.
    """
    path = run.devices / device_folder.folder_name(user)
    if not path.is_dir():
        known = [
            device_folder.read(each).user_id for each in device_folder.device_folders(run.devices)
        ]
        raise RunError(f"user={user}: no such user; this run has {', '.join(known[:10])} ...")
    return device_folder.read(path)
