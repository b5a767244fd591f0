"""What answering a user's queries is: the same for a device and for the cloud's oracles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

from conf.schema import SamplingConfig
from lamp import metrics, tasks
from lamp.metrics import QueryScore, score_query
from lamp.records import Prompt, Query, UserHistory
from lamp.retrieval import Tokenizer, prompt_with_items
from lamp.tasks import Task
from protocol.messages import AnswerReply
from protocol.settings import DeviceSettings

if TYPE_CHECKING:
    from lamp.bertscore import BertScore


def prompts(
    user: UserHistory, settings: DeviceSettings, tokenizer: Tokenizer, retrieved: int
) -> list[Prompt]:
    """The user's queries, with at most ``retrieved`` records of the own history in each."""
    return [
        prompt_with_items(
            tasks.task(settings.task),
            query,
            user.pairs,
            tokenizer,
            items=retrieved,
            max_tokens=settings.evaluation.rag_max_tokens,
        )
        for query in user.queries
    ]


def greedy(settings: DeviceSettings) -> SamplingConfig:
    """Greedy decoding with every other sampling setting switched off."""
    return SamplingConfig(temperature=0.0, max_new_tokens=settings.task.max_new_tokens)


class Answer(Protocol):
    """What a model gave for one query."""

    @property
    def text(self) -> str:
        """The answer."""

    @property
    def tokens(self) -> int:
        """Tokens generated."""

    @property
    def shortened(self) -> bool:
        """Whether the prompt lost text."""


def scored_replies(
    users: Sequence[UserHistory],
    arm: str,
    answers: Sequence[Sequence[Answer]],
    settings: DeviceSettings,
    seconds: float,
) -> list[AnswerReply]:
    """Measure the answers of users who were answered together.

    Args:
        users: Whose queries were answered.
        arm: Arm that answered.
        answers: Per user one answer per query.
        settings: The run's settings.
        seconds: Wall time of all; each user gets a share by tokens.
    """
    every = max(1, sum(each.tokens for own in answers for each in own))
    scores = _scores(users, answers, settings)
    return [
        _reply(user, arm, own, found, settings, seconds / every)
        for user, own, found in zip(users, answers, scores, strict=True)
    ]


def _reply(
    user: UserHistory,
    arm: str,
    answers: Sequence[Answer],
    scores: Sequence[QueryScore],
    settings: DeviceSettings,
    seconds: float,
) -> AnswerReply:
    """Disclose what the settings allow of one user's scores; ``seconds`` are those of a token."""
    task, tokens = tasks.task(settings.task), sum(each.tokens for each in answers)
    if settings.evaluation.disclose == "sums":
        columns = _sums(task, scores)
    else:
        columns = _columns(user.queries, scores)
    shipped = settings.evaluation.ship_predictions
    return AnswerReply(
        user_id=user.user_id,
        arm=arm,
        num_queries=len(user.queries),
        seconds=seconds * tokens,
        tokens=tokens,
        shortened=sum(each.shortened for each in answers),
        texts=tuple(each.text for each in answers) if shipped else (),
        gold_texts=tuple(query.gold for query in user.queries) if shipped else (),
        **columns,
    )


def _scores(
    users: Sequence[UserHistory], answers: Sequence[Sequence[Answer]], settings: DeviceSettings
) -> list[list[QueryScore]]:
    """Score all users' answers; BERTScore encodes all of their texts together."""
    task, path = tasks.task(settings.task), settings.evaluation.bertscore
    asked = [[query.gold for query in user.queries] for user in users]
    scores = [
        [score_query(task, answer.text, gold) for answer, gold in zip(own, golds, strict=True)]
        for own, golds in zip(answers, asked, strict=True)
    ]
    if path is None or task.kind != "text":
        return scores
    texts = [answer.text for own in answers for answer in own]
    values = iter(_bertscore(path).score(texts, [gold for golds in asked for gold in golds]))
    return [[replace(score, bertscore=next(values)) for score in own] for own in scores]


@lru_cache(maxsize=1)
def _bertscore(path: str) -> BertScore:
    from lamp.bertscore import load_bertscore  # loads a deep-learning library

    return load_bertscore(path)


def _columns(queries: Sequence[Query], scores: Sequence[QueryScore]) -> dict[str, Any]:
    return {
        "query_ids": tuple(query.id for query in queries),
        "gold": _present(score.gold for score in scores),
        "predicted": _present(score.prediction for score in scores),
        "errors": _present(score.error for score in scores),
        "rouge1": _present(score.rouge1 for score in scores),
        "rouge_l": _present(score.rougeL for score in scores),
        "bertscore": _present(score.bertscore for score in scores),
        "unicode_rouge1": _unicode(scores),
        "parsed": tuple(int(score.parsed) for score in scores),
        "sums": (),
    }


def _unicode(scores: Sequence[QueryScore]) -> tuple[float, ...]:
    """The scores on Unicode tokens, -1 where there is none; empty where there is none at all."""
    values = [score.unicode_rouge1 for score in scores]
    if all(value is None for value in values):
        return ()
    return tuple(-1.0 if value is None else value for value in values)


def _sums(task: Task, scores: Sequence[QueryScore]) -> dict[str, Any]:
    empty = ("query_ids", "gold", "predicted", "errors", "rouge1", "rouge_l", "bertscore", "parsed")
    sums = tuple(float(value) for value in metrics.sums(task, scores))
    return {**dict.fromkeys(empty, ()), "sums": sums}


def _present(values: Any) -> tuple[Any, ...]:
    return tuple(value for value in values if value is not None)


def misfit(reply: AnswerReply, task: Task) -> str:
    """What of a device's numbers cannot be those of the task; "" where nothing is.

    A reply that fits can be pooled with others; whether its numbers are true nobody can tell.
    """
    if reply.sums:
        return _misfit_of_sums(reply, task)
    columns = {
        "classification": (reply.gold, reply.predicted),
        "rating": (reply.errors,),
        "text": (reply.rouge1, reply.rouge_l),
    }
    if any(len(column) != len(reply.query_ids) for column in columns[task.kind]):
        return f"the reply lacks scores of {task.kind}"
    if any(column for kind, own in columns.items() if kind != task.kind for column in own):
        return f"the reply has scores of something else than {task.kind}"
    if max((*reply.gold, *reply.predicted), default=0) >= max(1, len(task.labels)):
        return "the reply names a label that the task does not have"
    return ""


def _misfit_of_sums(reply: AnswerReply, task: Task) -> str:
    count, *rest = reply.sums
    if len(reply.sums) != metrics.sums_width(task):
        return f"the reply has other sums than those of {task.kind}"
    if count != reply.num_queries:
        return "the reply's sums are over another number of queries"
    if task.kind != "rating" and any(each > count * (1 + 1e-3) for each in rest):
        return "the reply's sums are larger than its queries allow"
    return ""
