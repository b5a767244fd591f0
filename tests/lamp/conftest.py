from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from conf.compose import compose
from conf.schema import Config
from lamp.tasks import TASKS

PREFIX = "Generate a headline for the following article: "
Entry = dict[str, Any]


@pytest.fixture
def make_config(tmp_path: Path) -> Callable[..., Config]:
    """Make the configuration of one target user of the data below tmp_path / "data".

    Keys are given as in ``make_config("lamp_1", {"task.pair": "citation"}, users=2)``.
    """

    def make(task: str = "lamp_4", nested: Mapping[str, Any] | None = None, **keys: Any) -> Config:
        config = replace(_composed(task), **{"data": str(tmp_path / "data"), "users": 1, **keys})
        for path, value in {"paths.cache": str(tmp_path / "cache"), **(nested or {})}.items():
            group, key = path.split(".")
            config = replace(config, **{group: replace(getattr(config, group), **{key: value})})
        return config

    return make


@cache
def _composed(task: str) -> Config:
    return compose([f"task={task}"])


@pytest.fixture
def write_lamp(tmp_path: Path) -> Callable[..., Path]:
    """Write questions and golds as official files below tmp_path / "data"."""

    def write(
        questions: Sequence[Entry],
        golds: Mapping[str, str] | None = None,
        task: str = "lamp_4",
        place: str | None = None,
        part: str = "dev",
    ) -> Path:
        official = TASKS[task].official
        folder = tmp_path / "data" / (place or official)
        folder.mkdir(parents=True, exist_ok=True)
        answers = {each["id"]: "gold" for each in questions} if golds is None else golds
        entries = [{"id": key, "output": value} for key, value in answers.items()]
        outputs = {"task": official, "golds": entries}
        (folder / f"{part}_questions.json").write_text(json.dumps(list(questions)))
        (folder / f"{part}_outputs.json").write_text(json.dumps(outputs))
        return tmp_path / "data"

    return write


@pytest.fixture
def make_question() -> Callable[..., Entry]:
    """Make a LaMP-4 question whose profile has one item per given text or per (text, date)."""

    def make(
        identifier: str,
        texts: Sequence[str | tuple[str, str]] = ("an old article",),
        asks: str = "a new article",
        user: str | None = None,
    ) -> Entry:
        question: Entry = {"id": identifier, "input": PREFIX + asks, "profile": []}
        if user is not None:
            question["user_id"] = user
        for number, text in enumerate(texts):
            item = {"id": f"{identifier}-{number}", "title": f"title {number}"}
            if isinstance(text, tuple):
                text, item["date"] = text
            question["profile"].append({**item, "text": text})
        return question

    return make
