"""Real runs of seconds in processes of their own, and what of two runs has to be equal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2ForSequenceClassification
from transformers.utils import logging as library_logging

from storage import jsonlines
from tests.faults.endpoint import MODEL
from tests.plugins import qwen2

ROOT = Path(__file__).resolve().parents[2]
KEY = "sk-fault-tests-secret"
TIMES = ("seconds",)
Lines = Counter[str]


def write_models(folder: Path) -> Path:
    """Random networks in Hugging Face layout: cloud, device, and a classifier of three labels."""
    library_logging.disable_progress_bar()
    for which in ("cloud", "device"):
        qwen2.write_folder(folder / which)
    tokenizer = qwen2.build_tokenizer()
    config = qwen2.build_model(tokenizer).config
    config.num_labels = 3
    config.id2label = {0: "contradiction", 1: "entailment", 2: "neutral"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        Qwen2ForSequenceClassification(config).save_pretrained(folder / "nli")
    tokenizer.save_pretrained(folder / "nli")
    return folder


def words(model: Path, folder: Path, endpoint: str, *more: str) -> list[str]:
    """A run of seconds: random networks, an endpoint that writes, filters that let pass."""
    return [
        "model=qwen2.5",
        *(f"model.{which}.path='{model / which}'" for which in ("cloud", "device", "nli")),
        *(f"model.{which}.dtype=float32" for which in ("cloud", "device")),
        "world=small",
        "task.max_new_tokens=3",
        "qlora.base_max_records=16",
        "qlora.epochs=1",
        "qlora.cohort=1",
        "qlora.compute_dtype=float32",
        "augmenter=openai",
        f"augmenter.endpoint.base_url={endpoint}",
        f"augmenter.endpoint.model={MODEL}",
        "augmenter.endpoint.backoff_s=0.05",
        "augmenter.k=1",
        "filters.eps_scf=0",
        "filters.eps_tdf=1",
        "filters.eps_min_len=0",
        "filters.eps_max_len=100",
        "evaluation.bootstrap=50",
        f"paths.cache='{folder / 'cache'}'",
        f"paths.runs='{folder / 'runs'}'",
        *more,
    ]


def start(arguments: Iterable[str], log: Path, module: str = "sim") -> subprocess.Popen[bytes]:
    """Start ``python -m module``; what it prints is appended to ``log``."""
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENAI_API_KEY": KEY},
            stdout=file,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )


def rows(run: Path, name: str) -> list[dict[str, Any]]:
    """The lines of one of the run's files."""
    return list(jsonlines.read(run / f"{name}.jsonl"))


def results(run: Path, leave_out: Iterable[str] = ()) -> Mapping[str, Any]:
    """All that has to be equal in two runs of one setting, but for the users left out."""
    gone = set(leave_out)
    found: dict[str, Any] = {
        name: _lines(row for row in rows(run, name) if row["user"] not in gone)
        for name in ("answers", "adaptations", "augmentation")
    }
    found["ledger"] = _deliveries(
        row
        for row in rows(run, "ledger")
        if row["user"] not in gone and not row["user"].startswith("node ")  # whose is not known
    )
    found["adapters"] = {
        str(path.relative_to(run)): path.read_bytes()
        for path in sorted(run.glob("devices/*/adapters/*/adapter_model.safetensors"))
        if json.loads((path.parents[2] / "history.json").read_text())["user_id"] not in gone
    }
    return found


def computed_twice(run: Path) -> int:
    """Trainings and answers that stand in the log more than once."""
    trained = Counter(
        (row["adapter"], row["round"], row["user"]) for row in rows(run, "adaptations")
    )
    answered = Counter((row["arm"], row["user"], row["query"]) for row in rows(run, "answers"))
    return sum(count - 1 for counted in (trained, answered) for count in counted.values())


def _lines(lines: Iterable[dict[str, Any]]) -> Lines:
    return Counter(
        json.dumps({key: value for key, value in line.items() if key not in TIMES}, sort_keys=True)
        for line in lines
    )


def _deliveries(lines: Iterable[dict[str, Any]]) -> Lines:
    """The ledger without re-deliveries; replies hold times, so their bytes are not compared."""
    kept = ("user", "direction", "kind", "arm", "records", "fields", "request")
    return Counter(
        json.dumps([line[key] for key in kept]) for line in lines if not line["redelivery"]
    )
