"""What leaves the device: the only code that decides it, from the device's own policy.

**Records.** The order in which they leave is fixed at set-up (:mod:`clients.share_order`). A ratio
r covers the first round-half-up(r * n) of them, never more than the policy's ratio times n, rounded
down; a smaller share always lies inside a larger one, and whatever a server asks, however often,
the union of what it gets is one prefix of that order. Withdrawn records never leave. What the
policy redacts is redacted here.

**Numbers.** Every reply goes through :func:`release`. With ``numbers=none`` it tells that the work
was done; with ``coarse`` what stands at :func:`coarse`; with ``exact`` all that was asked for. How
many replies one message can have under a policy is counted (:func:`bits_of`), errors included, and
the budget bounds their sum. Of replies with exact numbers no bound is known and none is claimed.

Adapter weights and texts of answers leave only where the policy permits them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_FLOOR, ROUND_HALF_UP, Decimal
from typing import Any

import numpy as np
from flwr.app import RecordDict

from clients import sent
from clients.folder import Device
from clients.policy import Policy
from clients.sensitivity import redacted
from clients.share_order import sharing_order
from conf.errors import ProtocolError
from lamp import metrics, tasks
from lamp.records import Pair
from protocol.codec import WireMessage, encode
from protocol.errors import ERROR_CLASSES
from protocol.messages import AdaptReply, AnswerReply, ShareReply
from protocol.recipe import Recipe
from protocol.wire import serialise
from storage.hashing import hash_bytes

POWERS = (10, 100, 1_000, 10_000)
LOSS_LOW, LOSS_HIGH = 0.1, 9.9  # nats per token; coarse losses are cut to it
SCORE_STEPS = 100  # coarse scores are whole hundredths
MAX_ERROR = 4.0  # stars, of the mean absolute error
LOSSES = 90 + 90  # 0.10 ... 0.99 and 1.0 ... 9.9, two digits each


@dataclass(frozen=True, slots=True)
class Grant:
    """What may leave the device for one share request.

    Attributes:
        pairs: Records of the largest granted ratio, in sharing order, redacted.
        counts: Per requested ratio, how many of ``pairs`` from the start belong to it.
        redactions: Per record of ``pairs``, how many spans were redacted.
    """

    pairs: tuple[Pair, ...]
    counts: tuple[int, ...]
    redactions: tuple[int, ...]


def grant(device: Device, ratios: Sequence[float]) -> Grant:
    """Decide a share request; a ratio above the policy's is granted as the policy's."""
    ordered = sharing_order(device)
    withdrawn = set(device.policy.withdrawn)
    counts = []
    for ratio in ratios:
        covered = ordered[: covered_count(ratio, device.policy, len(ordered))]
        counts.append(sum(pair.id not in withdrawn for pair in covered))
    allowed = [pair for pair in ordered if pair.id not in withdrawn]
    leaving = [_redact(pair, device.policy) for pair in allowed[: max(counts, default=0)]]
    return Grant(
        pairs=tuple(pair for pair, _ in leaving),
        counts=tuple(counts),
        redactions=tuple(number for _, number in leaving),
    )


def as_sent(device: Device, record_ids: Collection[str]) -> tuple[Pair, ...]:
    """These records in the form in which they leave, or left, the device."""
    return tuple(
        _redact(pair, device.policy)[0] for pair in device.history.pairs if pair.id in record_ids
    )


def granted_ratio(asked: float, policy: Policy) -> float:
    """The ratio that the user grants: never above the policy; nonsense (nan, below 0) gets 0."""
    return min(asked, policy.ratio) if asked > 0 else 0.0


def covered_count(asked: float, policy: Policy, num_records: int) -> int:
    """Records that a request for the ratio ``asked`` covers; the policy's ratio is a cap."""
    granted = shared_count(granted_ratio(asked, policy), num_records)
    return min(granted, largest_share(policy.ratio, num_records))


def shared_count(ratio: float, num_records: int) -> int:
    """round-half-up(ratio * n) in decimal: 0.7 of 45 is 31.5, so 32 records."""
    exact = Decimal(str(ratio)) * num_records
    return int(exact.quantize(Decimal(1), rounding=ROUND_HALF_UP))


def largest_share(ratio: float, num_records: int) -> int:
    """floor(ratio * n) in decimal: the most records that the share ``ratio`` of a user covers."""
    return int((Decimal(str(ratio)) * num_records).quantize(Decimal(1), rounding=ROUND_FLOOR))


def check_recipe(device: Device, recipe: Recipe) -> None:
    """Refuse training whose outcome the user does not let go.

    Raises:
        ProtocolError: If the adapter's weights were to leave and the policy does not permit it.
    """
    if recipe.federated and "weights" not in device.policy.permits:
        raise ProtocolError(
            f"user {device.user_id}: the server asks for adapter weights; this user permits "
            f"{', '.join(device.policy.permits) or 'none'} of weights, texts"
        )


def release(device: Device, kind: str, reply: WireMessage) -> RecordDict:
    """Turn a reply into what leaves, and note it on the device.

    Args:
        device: Whose reply it is.
        kind: Type of the message that it answers.
        reply: What the device computed.
    """
    allowed = thinned(reply, device.policy)
    content = encode(allowed)
    serialised = serialise(content)
    sent.note(
        device.folder,
        kind,
        arm=str(getattr(allowed, "arm", "")),
        records=len(getattr(allowed, "pairs", ())),
        size=len(serialised),
        digest=hash_bytes(serialised),
    )
    return content


def charge(device: Device, kind: str) -> None:
    """Charge a message of this type to the device's budget, before it is answered.

    Raises:
        BudgetError: If the user allows no more.
    """
    sent.charge(device.folder, device.policy.budget, kind, bits_of(kind, device.policy))


def thinned(reply: WireMessage, policy: Policy) -> WireMessage:
    """The reply without what the policy keeps on the device."""
    if not isinstance(reply, AdaptReply | AnswerReply):
        return reply
    allowed = _permitted(reply, policy)
    if policy.numbers == "exact":
        return allowed
    return coarse(allowed, policy) if policy.numbers == "coarse" else _without_numbers(allowed)


def coarse(reply: AdaptReply | AnswerReply, policy: Policy) -> AdaptReply | AnswerReply:
    """One number about a whole user: the mean loss of a training, or the score of all answers.

    Losses have two digits, between 0.1 and 9.9; scores are whole hundredths. They stand beside the
    number of records or queries: the policy's minimum, or the largest power of ten up to 10,000,
    that they reach. Below the minimum nothing is told.
    Weights that the policy permits go with them.
    """
    if isinstance(reply, AdaptReply):
        records = _bucket(reply.records, policy)
        losses = (_two_digits(float(np.mean(reply.losses))),) if records and reply.losses else ()
        return replace(_no_training(reply), records=records, losses=losses, weights=reply.weights)
    number = _bucket(reply.num_queries, policy)
    if not number:
        return _no_answers(reply)
    sums = _coarse_sums(reply, number, policy)
    return replace(_no_answers(reply), num_queries=number, sums=sums)


def bits_of(kind: str, policy: Policy) -> float:
    """log2 of the number of replies that a message of this type can have, errors included.

    0 where numbers are exact: of these no bound is claimed. Records that the user shares, and
    weights where they are permitted, are no numbers; a share reply tells how many records there
    are.
    """
    if policy.numbers == "exact":
        return 0.0
    return math.log2(_distinct(kind, policy) + len(ERROR_CLASSES))


def _distinct(kind: str, policy: Policy) -> int:
    if kind == ShareReply.TYPE:
        return 1 << 20
    if policy.numbers == "none" or kind not in (AdaptReply.TYPE, "train.collect", AnswerReply.TYPE):
        return 1
    buckets = len(_buckets(policy))
    if kind == AnswerReply.TYPE:
        return 1 + buckets * (_most_steps(policy) + 1)
    return 1 + buckets * (LOSSES + 1)


def _most_steps(policy: Policy) -> int:
    rating = policy.task is not None and tasks.task(policy.task).kind == "rating"
    return int(MAX_ERROR * SCORE_STEPS) if rating else SCORE_STEPS


def _permitted(reply: AdaptReply | AnswerReply, policy: Policy) -> AdaptReply | AnswerReply:
    if isinstance(reply, AdaptReply):
        return reply if "weights" in policy.permits else replace(reply, weights={})
    return reply if "texts" in policy.permits else replace(reply, texts=(), gold_texts=())


def _without_numbers(reply: AdaptReply | AnswerReply) -> AdaptReply | AnswerReply:
    if isinstance(reply, AnswerReply):
        return _no_answers(reply)
    return replace(_no_training(reply), weights=reply.weights)


def _no_training(reply: AdaptReply) -> AdaptReply:
    return AdaptReply(
        user_id=reply.user_id,
        arm=reply.arm,
        steps=0,
        records=0,
        synthetic=0,
        losses=(),
        tokens=0,
        seconds=0.0,
        peak_memory_bytes=0,
        adapter_bytes=0,
    )


def _no_answers(reply: AnswerReply) -> AnswerReply:
    columns = ("query_ids", "gold", "predicted", "errors", "rouge1", "rouge_l", "bertscore")
    empty: dict[str, Any] = dict.fromkeys((*columns, "parsed", "sums", "texts", "gold_texts"), ())
    return AnswerReply(
        user_id=reply.user_id, arm=reply.arm, num_queries=0, seconds=0.0, tokens=0, **empty
    )


def _buckets(policy: Policy) -> tuple[int, ...]:
    """What counts are told as, in ascending order."""
    lowest = max(1, policy.minimum)
    return (lowest, *(power for power in POWERS if power > lowest))


def _bucket(number: int, policy: Policy) -> int:
    """The largest bucket that ``number`` reaches; 0 below the policy's minimum."""
    return max((each for each in _buckets(policy) if each <= number), default=0)


def _two_digits(value: float) -> float:
    if not math.isfinite(value):
        return LOSS_HIGH
    return float(f"{min(max(value, LOSS_LOW), LOSS_HIGH):.2g}")


def _coarse_sums(reply: AnswerReply, number: int, policy: Policy) -> tuple[float, ...]:
    """The headline score of all queries as sums over ``number`` of them; nan for what is not told.

    The score is that of the device's own task.
    """
    if policy.task is None:
        return ()
    task = tasks.task(policy.task)
    name, _ = metrics.headline(task)
    own = np.asarray(reply.sums or metrics.sums(task, _scores(reply)), dtype=np.float64)
    score = float(metrics.metrics_of_sums(task, own)[name])
    most = MAX_ERROR if name == "mae" else 1.0
    shown = round(min(max(score, 0.0), most), 2) if math.isfinite(score) else 0.0
    sums = np.full(len(own), math.nan)
    sums[0], sums[2] = number, shown * number
    return tuple(sums.tolist())


def _scores(reply: AnswerReply) -> list[metrics.QueryScore]:
    """The columns of a reply as scores per query."""
    columns: dict[str, Sequence[Any]] = {
        "gold": reply.gold,
        "prediction": reply.predicted,
        "error": reply.errors,
        "rouge1": reply.rouge1,
        "rougeL": reply.rouge_l,
        "bertscore": reply.bertscore,
    }
    scores = []
    for place in range(reply.num_queries):
        found: dict[str, Any] = {name: own[place] for name, own in columns.items() if own}
        scores.append(metrics.QueryScore(parsed=bool(reply.parsed[place]), **found))
    return scores


def _redact(pair: Pair, policy: Policy) -> tuple[Pair, int]:
    """The record as it may leave, and how many spans were redacted."""
    made = {field: redacted(getattr(pair, field)) for field in policy.redact}
    texts = {field: text for field, (text, _) in made.items()}
    return replace(pair, **texts), sum(number for _, number in made.values())
