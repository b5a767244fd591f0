"""Offline answering: the device answers its own queries and reports numbers.

Evaluation decodes greedily; the gold answers lie on the device, so the server sees neither query
nor answer. ``answer_text`` serves a user's free question from the same adapter.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import lru_cache
from typing import Any

from clients import adapters
from clients.base import Base
from clients.folder import Device
from conf.schema import SamplingConfig, TaskConfig
from lamp import metrics, tasks
from lamp.metrics import QueryScore, score_query
from lamp.records import Query
from lamp.tasks import Task
from models import lora
from models.generation import Generation, generate
from protocol.messages import AnswerReply, AnswerRequest
from protocol.settings import DeviceSettings


def answer(
    device: Device, base: Base, request: AnswerRequest, settings: DeviceSettings
) -> AnswerReply:
    """Answer all scored queries of the user and measure the answers against the gold ones."""
    started = time.perf_counter()
    queries = device.history.queries
    generations = _decode(
        device,
        base,
        request.arm if request.adapted else None,
        [query.input for query in queries],
        settings,
    )
    texts = [generation.text for generation in generations]
    task = tasks.task(settings.task)
    scores = _scores(task, queries, texts, settings)
    if settings.evaluation.disclose == "sums":
        columns = _sums(task, scores)
    else:
        columns = _columns(queries, scores)
    shipped = settings.evaluation.ship_predictions
    return AnswerReply(
        user_id=device.user_id,
        arm=request.arm,
        num_queries=len(queries),
        seconds=time.perf_counter() - started,
        tokens=sum(generation.tokens for generation in generations),
        texts=tuple(texts) if shipped else (),
        gold_texts=tuple(query.gold for query in queries) if shipped else (),
        **columns,
    )


def answer_text(
    device: Device, base: Base, arm: str | None, prompt: str, settings: DeviceSettings
) -> str:
    """Answer one free question with the adapter of ``arm`` (None: with M_base alone)."""
    return _decode(device, base, arm, [prompt], settings)[0].text


def greedy(task: TaskConfig) -> SamplingConfig:
    """Greedy decoding with every other sampling setting switched off."""
    return SamplingConfig(temperature=0.0, max_new_tokens=task.max_new_tokens)


def _decode(
    device: Device, base: Base, arm: str | None, prompts: Sequence[str], settings: DeviceSettings
) -> list[Generation]:
    if arm is not None:
        adapters.load_into(device, arm, base.model)
    with nullcontext() if arm is not None else lora.disabled(base.model):
        return generate(
            base.model,
            base.tokenizer,
            prompts,
            seeds=[0] * len(prompts),  # greedy: nothing is drawn
            sampling=greedy(settings.task),
            batch_size=settings.evaluation.batch_size,
            system=settings.system_prompt,
        )


def _scores(
    task: Task, queries: Sequence[Query], texts: Sequence[str], settings: DeviceSettings
) -> list[QueryScore]:
    folder = settings.evaluation.bertscore
    scorer = _bertscore(folder) if folder and task.kind == "text" else None
    return [
        score_query(task, text, query.gold, scorer)
        for query, text in zip(queries, texts, strict=True)
    ]


@lru_cache(maxsize=1)
def _bertscore(folder: str) -> Callable[[str, str], float] | None:
    from lamp.bertscore import load_bertscore

    return load_bertscore(folder)


def _columns(queries: Sequence[Query], scores: Sequence[QueryScore]) -> dict[str, Any]:
    return {
        "query_ids": tuple(query.id for query in queries),
        "gold": _present(score.gold for score in scores),
        "predicted": _present(score.prediction for score in scores),
        "errors": _present(score.error for score in scores),
        "rouge1": _present(score.rouge1 for score in scores),
        "rouge_l": _present(score.rougeL for score in scores),
        "bertscore": _present(score.bertscore for score in scores),
        "parsed": tuple(int(score.parsed) for score in scores),
        "sums": (),
    }


def _sums(task: Task, scores: Sequence[QueryScore]) -> dict[str, Any]:
    empty = ("query_ids", "gold", "predicted", "errors", "rouge1", "rouge_l", "bertscore", "parsed")
    sums = tuple(float(value) for value in metrics.sums(task, scores))
    return {**dict.fromkeys(empty, ()), "sums": sums}


def _present(values: Any) -> tuple[Any, ...]:
    return tuple(value for value in values if value is not None)
