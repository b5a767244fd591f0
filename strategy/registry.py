"""The registry: which node is whose device; node ids are random, so the nodes are asked."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from flwr.app import Message
from flwr.serverapp import Grid

from conf.errors import DataError, ProtocolError, RunError
from protocol.codec import decode, encode
from protocol.messages import PROTOCOL_VERSION, HelloReply, HelloRequest
from storage.text_files import display_name, read_table, shown, unique_rows
from strategy.grid import TTL_S, AccountedGrid, MessageFailure

POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Registry:
    """Whose devices are there.

    Attributes:
        nodes: Node id by user id, in the order of the user ids.
        downloads: Per user whose device gets base models sent: the SHA-256 of those it holds.
    """

    nodes: Mapping[str, int]
    downloads: Mapping[str, frozenset[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Which devices are waited for, and how patient the server is with them.

    Attributes:
        users: Nodes to wait for.
        nodes_limit_s: How long, in seconds.
        retries: How often a failed message is sent again.
        stall_s: What is open is given up after so many seconds without any reply.
        end_hung: Ends device processes that hang and returns how many; for simulations.
        bound: Whose device each node is; None where any node may say so itself.
        signing_key: Ed25519 private key with which base models are signed; None signs nothing.
    """

    users: int
    nodes_limit_s: float = 180.0
    retries: int = 1
    stall_s: float = 1860.0
    end_hung: Callable[[], int] = lambda: 0
    bound: Mapping[int, str] | None = None
    signing_key: Path | None = None


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


def discover_clients(
    grid: AccountedGrid, nodes: list[int], bound: Mapping[int, str] | None = None
) -> Registry:
    """Ask every node whose device it is; a node that does not answer is left out and stays noted.

    So is one of another version, one that claims to be another user's than it is bound to, and, of
    several that claim to be one user's, each that is not bound to it: nobody can tell them apart.

    Args:
        grid: Where messages go.
        nodes: The nodes.
        bound: Whose device each node is, as its operator registered its key; None where any node
            may say so itself.

    Raises:
        RunError: If no node is left.
    """
    request = encode(HelloRequest(version=PROTOCOL_VERSION))
    replies = grid.send_and_receive(
        [Message(request, node, HelloRequest.TYPE, ttl=TTL_S, group_id="hello") for node in nodes]
    )
    said = {each.metadata.src_node_id: decode(HelloReply, each.content) for each in replies}
    claims = Counter(hello.user_id for hello in said.values())
    users: dict[str, int] = {}
    downloads: dict[str, frozenset[str]] = {}
    for node, hello in said.items():
        if fault := _fault(node, hello, claims, bound):
            grid.failures.append(
                MessageFailure("", f"node {node}", HelloRequest.TYPE, ProtocolError.__name__, fault)
            )
            continue
        users[hello.user_id] = node
        if hello.downloads:
            downloads[hello.user_id] = frozenset(hello.held)
    if not users and grid.failures:
        failure = grid.failures[0]
        raise RunError(f"{failure.user}: no answer to hello ({failure.kind}: {failure.reason})")
    grid.know({node: user for user, node in users.items()})
    return Registry(dict(sorted(users.items())), downloads)


NODE_ID = re.compile(r"[1-9][0-9]{0,19}")  # 64 bits


def read_bound(path: Path) -> dict[int, str]:
    """Read whose device each node is: CSV with the columns node_id, user_id.

    Raises:
        DataError: If the file is missing or broken, or names a node or user twice.
    """
    where = display_name(path)
    table = read_table(path, ("node_id", "user_id"), missing="set engine.nodes")
    rows = list(unique_rows(table, "node_id", where))
    list(unique_rows(table, "user_id", where))
    for number, row in rows:
        if not NODE_ID.fullmatch(row["node_id"]):
            raise DataError(
                f"{where} line {number}: expected the number that flwr supernode register gave, "
                f"got {shown(row['node_id'])}; correct it"
            )
    return {int(row["node_id"]): row["user_id"] for _, row in rows}


def _fault(
    node: int, hello: HelloReply, claims: Mapping[str, int], bound: Mapping[int, str] | None
) -> str:
    """Why a node is left out, in words of ours; "" for none."""
    if hello.version != PROTOCOL_VERSION:
        return (
            f"expected protocol version {PROTOCOL_VERSION}, got {hello.version}; update the device"
        )
    if bound is not None and bound.get(node) != hello.user_id:
        return "the node claims to be another user's device than its key was registered for"
    if bound is None and claims[hello.user_id] > 1:
        return (
            f"user {hello.user_id}: two nodes or more claim to be this user's device; bind users "
            "to keys with engine.nodes"
        )
    return ""
