"""What a run needs of the machine around it, looked at before its folder's name is taken."""

from __future__ import annotations

import os
from pathlib import Path

from conf.errors import ConfigError
from conf.schema import Config
from storage import atomic

LONGEST_SOCKET = 107  # bytes in the path of a Unix domain socket on Linux
# what Ray puts below its temporary folder, with the longest process id
_RAY_SOCKET = "ray/session_2000-01-01_00-00-00_000000_4194304/sockets/plasma_store"


def check(config: Config) -> None:
    """Refuse folders that cannot be used.

    The cache is made if it is not there, as every run writes to it; the folder of runs is not.

    Raises:
        ConfigError: In one line, with the remedy.
    """
    cache, runs = Path(config.paths.cache), Path(config.paths.runs)
    _require_writable(cache, "paths.cache", "set CDCDA_CACHE or paths.cache to another folder")
    try:
        atomic.make_folder(cache)
    except OSError as error:
        raise ConfigError(
            f"paths.cache: {cache} cannot be made ({error.strerror}); "
            "set CDCDA_CACHE or paths.cache to another folder"
        ) from error
    _require_writable(runs, "paths.runs", "set paths.runs to another folder")
    if config.resources.backend == "ray" and config.engine.name == "simulation":
        _check_temporary()


def _require_writable(folder: Path, key: str, remedy: str) -> None:
    """Refuse a folder that is none, or cannot be made, or cannot be written."""
    nearest = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not nearest.is_dir():
        raise ConfigError(f"{key}: expected a folder, {nearest} is a file; {remedy}")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ConfigError(f"{key}: {nearest} cannot be written; {remedy}, or make it writable")


def _check_temporary() -> None:
    """Refuse a temporary folder in which Ray cannot make its sockets."""
    for name in ("RAY_TMPDIR", "TMPDIR"):
        value = os.environ.get(name)
        if value is None:
            continue
        if len(os.fsencode(Path(value) / _RAY_SOCKET)) > LONGEST_SOCKET:
            most = LONGEST_SOCKET - len(_RAY_SOCKET) - 1
            raise ConfigError(
                f"{name}: expected a path of at most {most} bytes, as Ray's sockets lie below it, "
                f"got {len(os.fsencode(value))}; export RAY_TMPDIR=/tmp, or set "
                "resources.backend=inline"
            )
        _require_writable(Path(value).absolute(), name, "name another folder or unset it")
        return
