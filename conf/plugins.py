"""Files of a user's own that register methods and tasks: ``plugins=[my_method.py]``.

A plugin is Python that runs with this process's rights. Its path comes from the local
configuration, or from the policy in a device's own folder; never from a message.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable
from hashlib import sha256
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from conf.errors import ConfigError

PREFIX = "cdcda_plugin_"  # of the modules' names
EXPECTED = "expected a Python file (.py) that calls register(...)"


def load(paths: Iterable[str], root: Path = Path()) -> None:
    """Import every file once in this process.

    Args:
        paths: Files; relative paths count from ``root``.
        root: A folder; as it is, the one that the process was started in.

    Raises:
        ConfigError: If a file is missing or its import fails; the message names file and line.
    """
    for given in paths:
        path = (root / Path(given).expanduser()).resolve()
        name = f"{PREFIX}{path.stem}_{sha256(str(path).encode()).hexdigest()[:12]}"
        if name not in sys.modules:
            _import(path, name)


def _import(path: Path, name: str) -> None:
    if path.suffix != ".py" or not path.is_file():
        raise ConfigError(f"plugins: {path}: no such file; {EXPECTED}, correct the path")
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"plugins: {path}: cannot be imported; {EXPECTED}")
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up while it is imported
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise ConfigError(f"plugins: {_place(path, error)}: {_reason(error)}") from error


def _place(path: Path, error: BaseException) -> str:
    """The file, with the last of its own lines that the error came through."""
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == str(path)
    ]
    line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
    return f"{path}, line {line}" if line else str(path)


def _reason(error: BaseException) -> str:
    if isinstance(error, ConfigError):  # of register(), which names the remedy
        return str(error)
    return f"{EXPECTED}, got {type(error).__name__}: {error}; correct the file"
