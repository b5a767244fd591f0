"""Fixture ``make_run``: a run folder as the simulation leaves it, written from seeds alone.

Users differ in skill, methods add to it, cdcda adds more the more a user shares; the same users
come back under every seed, with other noise. Nothing is trained.
"""

from __future__ import annotations

import csv
import gc
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from conf.compose import compose, to_json
from conf.schema import Config
from lamp import metrics, tasks
from sim.report import pictures
from sim.report.page import page
from storage import jsonlines
from strategy.arms import Arm, configured_arms

GAINS = {"device": 0.0, "direct_ft": 0.05, "direct_ft_matched": 0.055, "cdcda": 0.07}
METHODS = tuple(GAINS)
QUERIES = 10
HISTORY = 30
K = 5
Files = dict[str, list[dict[str, Any]]]
RATE = {"no_input": 0.02, "scf": 0.55, "tdf": 0.1, "lsf": 0.15}


@cache
def composed(task: str) -> Config:
    config = compose([f"task={task}"])
    return replace(config, evaluation=replace(config.evaluation, bootstrap=300))


def write_run(
    folder: Path,
    *,
    task: str = "lamp_4",
    users: int = 20,
    seed: int = 0,
    methods: tuple[str, ...] = METHODS,
    queries: int = QUERIES,
    ratios: tuple[float, ...] | None = None,
    missing: dict[str, tuple[str, ...]] | None = None,
    kept_rate: float | None = None,
    nli: float | None = 0.97,
    **changes: Any,
) -> Path:
    """Write one run folder and return it; ``missing`` names the users that fail per arm."""
    config = replace(
        composed(task), users=users, seed=seed, methods=methods, ratios=ratios, **changes
    )
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(to_json(config))
    models = {"nli": {"accuracy": nli, "pairs": 512}} if nli is not None else {}
    manifest = {"commit": "0123abc", "models": models, "data": {"notes": ["dates are made up"]}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    names = [f"user-{number:03d}" for number in range(users)]
    (folder / "registry.json").write_text(json.dumps([{"user_id": name} for name in names]))
    shares = np.random.default_rng(5).uniform(0, 1, users).round(3)
    _write_policies(folder, names, shares)
    failed = missing or {}
    files: Files = {"rounds": [phase("", "base model", 41.5)], "failures": []}
    for arm in configured_arms(config):
        gone = failed.get(arm.name, ())
        _add_arm(files, config, arm, [n for n in names if n not in gone], queries, kept_rate)
        files["failures"] += [failure(arm.name, user) for user in gone]
    for name, rows in files.items():
        jsonlines.append(folder / f"{name}.jsonl", rows)
    return folder


def phase(arm: str, name: str, seconds: float) -> dict[str, Any]:
    return {"arm": arm, "phase": name, "seconds": seconds, "users": 3}


def failure(arm: str, user: str) -> dict[str, Any]:
    reason = "no reply in 900 s"
    return {"arm": arm, "user": user, "phase": "train.adapt", "kind": "Lost", "reason": reason}


def _write_policies(folder: Path, names: list[str], shares: np.ndarray) -> None:
    with (folder / "policies.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("user_id", "ratio", "group"))
        writer.writerows((name, share, "open") for name, share in zip(names, shares, strict=True))


def _add_arm(
    files: Files, config: Config, arm: Arm, names: list[str], queries: int, kept_rate: float | None
) -> None:
    task = tasks.task(config.task)
    shares = np.random.default_rng(5).uniform(0, 1, config.users).round(3)
    for name in names:
        place = int(name.rpartition("-")[2])
        ratio = min(float(shares[place]), arm.asked_ratio)
        skill = 0.3 + np.random.default_rng((11, place)).normal(0, 0.08)
        skill += GAINS.get(arm.method.name, 0.0) + 0.06 * ratio * (arm.method.name == "cdcda")
        noise = np.random.default_rng((config.seed, place, len(arm.name)))
        rows = [
            {"arm": arm.name, "user": name, "query": f"{place}-{number}", **answer}
            for number in range(queries)
            for answer in [_answer(task, skill, (place, number), noise)]
        ]
        _add(files, "answers", rows)
        if arm.method.adapts:
            kept = _augment(files, arm, name, ratio, kept_rate)
            _adapt(files, arm, name, kept, noise)
        _cross(files, arm, name)
    _add(files, "rounds", [phase(arm.name, "adapt", 21.0), phase(arm.name, "answer", 9.3)])


def _add(files: Files, name: str, rows: list[dict[str, Any]]) -> None:
    files.setdefault(name, []).extend(rows)


def _answer(
    task: tasks.Task, skill: float, query: tuple[int, int], noise: np.random.Generator
) -> dict[str, Any]:
    hard = np.random.default_rng((3, *query)).normal(0, 0.15)  # the same in every arm and seed
    value = float(np.clip(skill + hard + noise.normal(0, 0.05), 0, 1))
    if task.kind == "text":
        found = {"rouge1": value, "rougeL": 0.9 * value, "bertscore": 0.8 + 0.1 * value}
        return {**found, "parsed": True}
    if task.kind == "rating":
        error = float(round(noise.normal(0, 1.5 - 2 * skill)))
        return {"error": error, "parsed": bool(noise.random() > 0.01)}
    gold = int(np.random.default_rng((4, *query)).integers(len(task.labels)))
    right = noise.random() < value + 0.2
    wrong = int(noise.integers(-1, len(task.labels)))
    prediction = gold if right else wrong
    return {"gold": gold, "prediction": prediction, "parsed": prediction >= 0}


def _augment(files: Files, arm: Arm, user: str, ratio: float, kept_rate: float | None) -> int:
    if not arm.method.needs_augmentation:
        return 0
    shared = int(ratio * HISTORY + 0.5)
    generated = shared * K
    rejected = {reason: int(rate * generated) for reason, rate in RATE.items()}
    if kept_rate is not None:
        rejected = {"scf": generated - int(kept_rate * generated)}
    kept = generated - sum(rejected.values())
    line = {"arm": arm.name, "user": user, "shared": shared, "generated": generated}
    if arm.method.downloads:
        rows = [{**line, "kept": kept, "rejected": {k: v for k, v in rejected.items() if v}}]
        _add(files, "augmentation", rows)
    return kept


def _adapt(files: Files, arm: Arm, user: str, kept: int, noise: np.random.Generator) -> None:
    synthetic = kept if arm.method.downloads else 0
    steps = 2 * -(-(HISTORY + kept) // 16)
    losses = 1.2 + 2 * np.exp(-np.arange(steps) / 3) + noise.normal(0, 0.1, steps)
    line = {
        "arm": arm.name,
        "user": user,
        "steps": steps,
        "records": HISTORY,
        "synthetic": synthetic,
        "losses": losses.tolist(),
        "seconds": 1.5,
        "tokens": 4000,
        "peak_memory_bytes": 700 << 20,
        "adapter_bytes": 2 << 20,
    }
    _add(files, "adaptations", [line])


def _cross(files: Files, arm: Arm, user: str) -> None:
    up, down = "device -> server", "server -> device"
    head = {"user": user, "arm": arm.name, "records": 0, "hash": "", "redelivery": False}
    rows = [
        {**head, "direction": down, "kind": "evaluate.answer", "bytes": 1500, "fields": ["arm"]},
        {**head, "direction": up, "kind": "evaluate.answer", "bytes": 2400, "fields": ["rouge1"]},
    ]
    base = {**head, "arm": "", "direction": down, "kind": "M_base", "bytes": 3 << 20}
    _add(files, "ledger", [*([base] if arm.name == "device" else []), *rows])


@pytest.fixture
def make_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Write a run folder below a folder ``runs``: ``make_run("name", task="lamp_2", seed=1)``.

    LaMP's own bootstrap median, which tests/lamp checks, is drawn from few resamples here.
    """
    monkeypatch.setattr(metrics, "COMPAT_RESAMPLES", 20)

    def make(name: str = "a-run", **settings: Any) -> Path:
        return write_run(tmp_path / "runs" / name, **settings)

    return make


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are empty files and the page has no charting code: that is half of a report's time.

    test_charts.py draws, and the browser of test_page.py shows the page as it is.
    """
    drawing = SimpleNamespace(
        vegalite_to_svg=lambda _: "<svg/>", svg_to_png=lambda *_, **__: b"\x89PNG"
    )
    monkeypatch.setattr(pictures, "vl_convert", drawing)
    monkeypatch.setattr(page, "_bundle", lambda: "/* bundle */")


@pytest.fixture(scope="module")
def ray_up() -> Iterator[Any]:
    """Ray in this process, with two CPUs and two GPUs that it only counts."""
    import ray

    with pytest.MonkeyPatch.context() as environment:
        for name in ("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "RAY_USAGE_STATS_ENABLED"):
            environment.setenv(name, "0")
        ray.init(
            address="local",
            num_cpus=2,
            num_gpus=2,
            include_dashboard=False,
            object_store_memory=100_000_000,
        )
        yield ray
        ray.shutdown()
    gc.collect()  # what Ray left open is told now, while it is not held against us
