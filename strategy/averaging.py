"""Averaging of LoRA weights by Flower's own FedAvg, weighted by the number of records."""

from __future__ import annotations

from collections.abc import Sequence

from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg

from protocol.codec import Arrays
from protocol.messages import AdaptReply

WEIGHT = "num-examples"


def average(server_round: int, replies: Sequence[tuple[str, AdaptReply]]) -> ArrayRecord | None:
    """Average the users' weights; None without replies.

    The replies come in the order of their users, so the sums are the same in every run.
    """
    messages = [
        Message(_as_flower_has_it(reply), dst_node_id=number, message_type=reply.TYPE)
        for number, (_, reply) in enumerate(replies, start=1)
    ]
    averaged, _ = FedAvg(weighted_by_key=WEIGHT).aggregate_train(server_round, messages)
    return averaged


def arrays_of(record: ArrayRecord) -> Arrays:
    """The named arrays of ``record``."""
    return {name: array.numpy() for name, array in record.items()}


def _as_flower_has_it(reply: AdaptReply) -> RecordDict:
    arrays = ArrayRecord({name: Array(weights) for name, weights in reply.weights.items()})
    return RecordDict({"arrays": arrays, "metrics": MetricRecord({WEIGHT: float(reply.records)})})
