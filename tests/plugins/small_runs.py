"""A run of seconds as command line words: random networks, few users, short answers."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from storage import jsonlines

ROOT = Path(__file__).resolve().parents[2]


def words(model: Path, folder: Path, *more: str) -> list[str]:
    """What follows ``python -m sim``; the run is ``folder/runs/run``."""
    return [
        "model=qwen2.5",
        *(f"model.{which}.path={model}" for which in ("cloud", "device", "nli")),
        *(f"model.{which}.dtype=float32" for which in ("cloud", "device")),
        "filters=embedding",  # random networks judge nothing: no reply can be read
        "world=small",
        "users=4",
        "task.max_new_tokens=4",
        "qlora.base_max_records=32",
        "qlora.epochs=1",
        "qlora.compute_dtype=float32",
        "augmenter.k=1",
        "augmenter.sampling.max_new_tokens=4",
        f"paths.cache={folder / 'cache'}",
        f"paths.runs={folder / 'runs'}",
        "name=run",
        *more,
    ]


def start(arguments: list[str], **options: Any) -> subprocess.Popen[str]:
    """Start ``python -m sim`` in a process with one thread; ``options`` are Popen's."""
    return subprocess.Popen(
        [sys.executable, "-m", "sim", *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


def wait_for_adaptation(is_over: Callable[[], object], ledger: Path, limit_s: float) -> None:
    """Wait until some device was asked to adapt."""
    end = time.monotonic() + limit_s
    while is_over() is None and time.monotonic() < end:
        if any(line["kind"].startswith("train.") for line in jsonlines.read(ledger)):
            return
        time.sleep(0.05)
    raise AssertionError("no device was asked to adapt")
