"""What users share and what they take back: one question to every device, answered by consent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from flwr.app import Message

from conf.errors import ProtocolError
from lamp.records import Pair
from protocol.codec import decode, encode
from protocol.messages import ShareReply, ShareRequest, WithdrawReply, WithdrawRequest
from strategy.grid import TTL_S, AccountedGrid, MessageFailure, ignore_reply
from strategy.planning import Shares
from strategy.progress import Progress
from strategy.registry import Registry


@dataclass(frozen=True, slots=True)
class Collected:
    """What the devices answered to the question for shares.

    Attributes:
        shares: Per user the records for each asked ratio; a smaller share is a prefix.
        replies: Per user the reply that they came in.
        failures: Replies that do not fit the question.
    """

    shares: Shares = field(default_factory=dict)
    replies: Mapping[str, ShareReply] = field(default_factory=dict)
    failures: tuple[MessageFailure, ...] = ()


def collect_shares(
    grid: AccountedGrid, nodes: Mapping[str, int], ratios: Sequence[float], progress: Progress
) -> Collected:
    """Ask every device once for all ``ratios``; each sends what its user's policy allows."""
    if not ratios:
        return Collected()
    request = encode(ShareRequest(ratios=tuple(ratios)))
    with progress.phase("share", len(nodes)) as phase:
        grid.on_reply = lambda _: phase.advance()
        messages = grid.send_and_receive(
            Message(request, node, ShareRequest.TYPE, ttl=TTL_S, group_id="share")
            for node in nodes.values()
        )
    grid.on_reply = ignore_reply
    replies = {grid.user_of(each): decode(ShareReply, each.content) for each in messages}
    fitting = {user: each for user, each in replies.items() if len(each.counts) == len(ratios)}
    return Collected(
        shares={user: _by_ratio(reply, ratios) for user, reply in fitting.items()},
        replies=fitting,
        failures=tuple(
            _miscounted(user, len(reply.counts), len(ratios))
            for user, reply in replies.items()
            if user not in fitting
        ),
    )


def collect_withdrawals(grid: AccountedGrid, registry: Registry) -> dict[str, tuple[str, ...]]:
    """Ask real devices which records their users took back, named by their hashes.

    A simulated user withdraws by ``python -m sim withdraw``, which plays both sides.
    """
    nodes = [registry.nodes[user] for user in registry.downloads]
    request = encode(WithdrawRequest())
    replies = grid.send_and_receive(
        [Message(request, node, WithdrawRequest.TYPE, ttl=TTL_S, group_id="w") for node in nodes]
    )
    withdrawn = {grid.user_of(each): decode(WithdrawReply, each.content) for each in replies}
    return {user: reply.records for user, reply in withdrawn.items() if reply.records}


def _by_ratio(reply: ShareReply, ratios: Sequence[float]) -> dict[float, tuple[Pair, ...]]:
    return {ratio: reply.pairs[:count] for ratio, count in zip(ratios, reply.counts, strict=True)}


def _miscounted(user: str, got: int, expected: int) -> MessageFailure:
    reason = f"expected {expected} counts, got {got}"
    return MessageFailure("", user, ShareReply.TYPE, ProtocolError.__name__, reason)
