"""The manifest: what a reader needs to trust and to repeat a run."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from conf.provenance import source_of
from conf.schema import Config
from lamp.dataset import LampData
from models.chat import PROMPT_DATE
from sim.folders import ROOT

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
            "public_records_left_out": data.left_out,
            "notes": list(data.notes),
            "statistics": statistics_of(data),
            "ages": dict(data.ages),
        },
        "models": models,
        "prompt_date": PROMPT_DATE.isoformat(),
        "settings": source_of(config.qlora),
        "assumptions": "docs/assumptions.md",
    }


def statistics_of(data: LampData) -> dict[str, float]:
    """What the paper's Table 4 tells of the target users; lengths in words."""
    pairs = [pair for user in data.targets for pair in user.pairs]
    return {
        "queries": sum(len(user.queries) for user in data.targets),
        "records_per_user": len(pairs) / max(1, len(data.targets)),
        "input_words": _mean_words(pair.input for pair in pairs),
        "response_words": _mean_words(pair.response for pair in pairs),
    }


def _mean_words(texts: Iterable[str]) -> float:
    lengths = [len(text.split()) for text in texts]
    return sum(lengths) / max(1, len(lengths))


def commit() -> str:
    """The code's commit, with '+changes' when the tree differs from it; 'unknown' outside git."""
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        return head + ("+changes" if _git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    result = subprocess.run(
        ["git", "-C", str(ROOT), *arguments],
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
