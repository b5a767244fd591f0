"""The roster: which node is whose device; node ids are random, so the nodes are asked."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from flwr.app import Message
from flwr.serverapp import Grid

from conf.errors import RunError
from protocol.codec import decode, encode
from protocol.messages import PROTOCOL_VERSION, HelloReply, HelloRequest
from strategy.exchange import TTL_S, AccountedGrid

POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Roster:
    """Whose devices are there.

    Attributes:
        nodes: Node id by user id, in the order of the user ids.
        downloads: Per user whose device gets base models sent: the SHA-256 of those it holds.
    """

    nodes: Mapping[str, int]
    downloads: Mapping[str, frozenset[str]]


def wait_for_nodes(grid: Grid, expected: int, limit_s: float) -> list[int]:
    """Wait until ``expected`` nodes are there: registration goes on while the server starts.

    Raises:
        RunError: If fewer came within the limit.
    """
    end = time.monotonic() + limit_s
    while len(nodes := sorted(grid.get_node_ids())) < expected:
        if time.monotonic() > end:
            raise RunError(
                f"nodes: expected {expected}, got {len(nodes)} after {limit_s:g} s; start as many "
                "SuperNodes as users (flwr run: --federation-config num-supernodes=...)"
            )
        time.sleep(POLL_S)
    return nodes


def call_roll(grid: AccountedGrid, nodes: list[int]) -> Roster:
    """Ask every node whose device it is; a node that does not answer is left out and stays noted.

    Raises:
        RunError: If no node answered, two claim the same user, or a version differs.
    """
    request = encode(HelloRequest(version=PROTOCOL_VERSION))
    replies = grid.send_and_receive(
        [Message(request, node, HelloRequest.TYPE, ttl=TTL_S, group_id="hello") for node in nodes]
    )
    if grid.failures and not replies:
        failure = grid.failures[0]
        raise RunError(f"{failure.user}: no answer to hello ({failure.kind}: {failure.reason})")
    users: dict[str, int] = {}
    downloads: dict[str, frozenset[str]] = {}
    for reply in replies:
        hello = decode(HelloReply, reply.content)
        if hello.version != PROTOCOL_VERSION:
            raise RunError(
                f"user {hello.user_id}: expected protocol version {PROTOCOL_VERSION}, "
                f"got {hello.version}; update the device"
            )
        if hello.user_id in users:
            raise RunError(f"user {hello.user_id}: two nodes claim to be this user's device")
        users[hello.user_id] = reply.metadata.src_node_id
        if hello.downloads:
            downloads[hello.user_id] = frozenset(hello.held)
    grid.know({node: user for user, node in users.items()})
    return Roster(dict(sorted(users.items())), downloads)
