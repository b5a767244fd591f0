"""``python -m sim download task=lamp_4``: fetch official LaMP files, with progress and resume."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as Bars

from conf.checks import MINIATURE
from conf.compose import compose, expand
from conf.errors import ConfigError
from conf.schema import Config
from lamp.download import OFFICIAL_URL, DownloadProgress, download
from lamp.tasks import task
from sim.terminal import PlainConsole

USAGE = f"""\
python -m sim download [--from <address>] [key=value ...]

Fetches question and answer files. A download that was cut off goes on where
it stopped, and files that are there already are left alone.

  task=lamp_4       which task; task=lamp_2,lamp_4 or task=glob(*) for several
  split=time        time (default) or user
  part=dev          train, dev (default) or test
  data=<folder>     where to; by default lamp/ in the cache (paths.cache)
  --from <address>  a mirror of {OFFICIAL_URL}

The files come from the benchmark's authors, under CC BY-NC-SA 4.0."""
FROM = "--from"


def main(argv: Sequence[str]) -> int:
    """Fetch the files that ``argv`` asks for.

    Returns:
        0; what cannot be fetched raises.

    Raises:
        ConfigError: If a word is refused.
        DataError: If a file cannot be fetched; the message says what to do.
    """
    console = PlainConsole()
    if {"-h", "--help"} & set(argv):
        console.print(USAGE)
        return 0
    address, words = _split_address(argv)
    configs = [compose(run) for run in expand(words)]
    for config in configs:
        _fetch(config, address, console)
    folder = _folder(configs[0])
    names = ",".join(dict.fromkeys(config.task.name for config in configs))
    multirun = "-m " if "," in names else ""
    console.print(f"Use them: python -m sim {multirun}task={names} data={folder}", soft_wrap=True)
    return 0


def _fetch(config: Config, address: str, console: Console) -> None:
    split: Literal["time", "user"] = "user" if config.split == "user" else "time"
    with _shown(console) as show:
        paths = download(
            task(config.task), split, config.part, _folder(config), base_url=address, progress=show
        )
    for path in paths:
        console.print(f"{path}  {path.stat().st_size / 1e6:.1f} MB", soft_wrap=True)


def _folder(config: Config) -> Path:
    if config.data != MINIATURE:
        return Path(config.data).expanduser().absolute()
    return Path(config.paths.cache).absolute() / "lamp"


def _split_address(argv: Sequence[str]) -> tuple[str, list[str]]:
    words = list(argv)
    if FROM not in words:
        return OFFICIAL_URL, words
    position = words.index(FROM)
    if position + 1 == len(words):
        raise ConfigError(f"{FROM}: expected an address after it, as in {FROM} {OFFICIAL_URL}")
    address = words[position + 1]
    return address, words[:position] + words[position + 2 :]


@contextmanager
def _shown(console: Console) -> Iterator[Callable[[DownloadProgress], None]]:
    """Show one bar per file while the block runs; nothing without a terminal."""
    bars = Bars(
        TextColumn("  {task.description:<32}", markup=False),
        BarColumn(bar_width=20),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    known: dict[str, TaskID] = {}

    def show(progress: DownloadProgress) -> None:
        if progress.file not in known:
            known[progress.file] = bars.add_task(progress.file, total=progress.total)
        bars.update(known[progress.file], completed=progress.done, total=progress.total)

    with bars:
        yield show
