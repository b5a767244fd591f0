"""The manifest: what a reader needs to trust and to repeat a run."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from conf.schema import Config
from lamp.dataset import LampData

PACKAGES = (
    "flwr", "ray", "torch", "transformers", "peft", "bitsandbytes", "datasets", "tokenizers",
    "hydra-core", "pydantic", "numpy", "scikit-learn", "rouge-score", "bert-score",
)  # fmt: skip


def make_manifest(config: Config, data: LampData, models: dict[str, Any]) -> dict[str, Any]:
    """Collect versions, commit, seeds, data counts and model facts."""
    return {
        "commit": commit(),
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {platform.system()}",
        "packages": {name: _version(name) for name in PACKAGES},
        "seed": config.seed,
        "data": {
            "source": config.data,
            "split": data.split,
            "targets": len(data.targets),
            "public": len(data.public),
            "contaminated_queries": sum(len(ids) for ids in data.contaminated.values()),
            "notes": list(data.notes),
        },
        "models": models,
        "assumptions": "docs/assumptions.md",
    }


def commit() -> str:
    """The code's commit, with '+changes' when the tree differs from it; 'unknown' outside git."""
    root = Path(__file__).resolve().parent.parent
    try:
        head = _git(root, "rev-parse", "--short=12", "HEAD")
        return head + ("+changes" if _git(root, "status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(root: Path, *arguments: str) -> str:
    result = subprocess.run(
        ["git", "-C", str(root), *arguments],
        check=True,
        capture_output=True,
        text=True,
    )
    return result.stdout.strip()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
