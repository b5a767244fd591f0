"""A Grid that retries, accounts and reports: every message of the strategy goes through it.

Replies come in completion order and error replies may name another node as their source, so a reply
is matched by the message it answers. A message that fails is sent once more (``retries``); what
still fails is kept as a :class:`Failure` under the user's id, and the others' results are
untouched. The clock that ends waiting starts with the last sign of life, never with the sending.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from protocol.codec import TEXTS
from strategy.ledger import DOWN, UP, Ledger

POLL_S = 0.05
TTL_S = 7 * 24 * 3600.0
_OWN_ERROR = re.compile(r"conf\.errors\.\w+: (?P<text>[^\n']{1,300})")
_ERROR_CLASS = re.compile(r"(?:ray\.exceptions\.RayTaskError\()?(\w+(?:Error|Exception|Died\w*))")


@dataclass(frozen=True, slots=True)
class Failure:
    """A message that got no good reply, after all retries."""

    arm: str
    user: str
    phase: str
    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class Answered:
    """A good reply and whose device it came from."""

    user: str
    message: Message


class AccountedGrid(Grid):
    """Wraps Flower's Grid; Strategy.start uses it like any other."""

    def __init__(self, grid: Grid, ledger: Ledger, retries: int, stall_s: float) -> None:
        """Wrap ``grid``.

        Args:
            grid: Flower's own grid.
            ledger: Gets one entry for every message and reply.
            retries: How often a failed message is sent again.
            stall_s: Give up on what is open after so many seconds without any reply.
        """
        self._grid, self._ledger = grid, ledger
        self._retries, self._stall_s = retries, stall_s
        self._users: dict[int, str] = {}
        self._answered_by: dict[str, str] = {}
        self.failures: list[Failure] = []
        self.on_reply: Callable[[], None] = ignore_reply

    def know(self, users: dict[int, str]) -> None:
        """Learn which node is whose device."""
        self._users = dict(users)

    def user_of(self, reply: Message) -> str:
        """Whose device a good reply came from: the node that was asked, whatever the reply says."""
        return self._answered_by[reply.metadata.reply_to_message_id]

    def take_failures(self) -> list[Failure]:
        """Return the failures so far and forget them."""
        taken, self.failures = self.failures, []
        return taken

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Send each message to its node and return the good replies, in order of their users.

        Failures are kept in :attr:`failures`. ``timeout`` bounds the whole call in seconds.
        """
        started = time.monotonic()
        todo = [_Outgoing.of(message) for message in messages]
        good: list[Message] = []
        bad: list[tuple[_Outgoing, str]] = []
        for _attempt in range(self._retries + 1):
            limit = None if timeout is None else started + timeout
            answered, bad = self._round_trip(todo, limit)
            good += answered
            todo = [outgoing for outgoing, _ in bad]
            if not todo:
                break
        self.failures += [self._failure(outgoing, reason) for outgoing, reason in bad]
        for _ in bad:
            self.on_reply()
        return sorted(good, key=self.user_of)  # replies arrive in completion order

    def _round_trip(
        self, todo: Sequence[_Outgoing], limit: float | None
    ) -> tuple[list[Message], list[tuple[_Outgoing, str]]]:
        messages = [outgoing.message() for outgoing in todo]
        ids = list(self._grid.push_messages(messages))
        waiting = {
            message_id: outgoing
            for message_id, outgoing in zip(ids, todo, strict=True)
            if message_id
        }
        for outgoing in todo:
            self._ledger.message(
                self._name(outgoing.node), DOWN, outgoing.message_type, outgoing.content
            )
        good: list[Message] = []
        bad = [
            (outgoing, "the node is gone")
            for message_id, outgoing in zip(ids, todo, strict=True)
            if not message_id
        ]
        last_sign = time.monotonic()
        while waiting:
            for reply in self._grid.pull_messages(set(waiting)):  # a copy: the grid changes it
                outgoing = waiting.pop(reply.metadata.reply_to_message_id)
                last_sign = time.monotonic()
                if reply.has_error():
                    bad.append((outgoing, str(reply.error.reason)))
                else:
                    good.append(self._accept(reply, outgoing))
            now = time.monotonic()
            if now - last_sign > self._stall_s or (limit is not None and now > limit):
                bad += [(outgoing, "no reply in time") for outgoing in waiting.values()]
                break
            if waiting:
                time.sleep(POLL_S)
        return good, bad

    def _accept(self, reply: Message, outgoing: _Outgoing) -> Message:
        user = self._name(outgoing.node)
        self._answered_by[reply.metadata.reply_to_message_id] = user
        self._ledger.message(user, UP, outgoing.message_type, reply.content)
        self.on_reply()
        return reply

    def _failure(self, outgoing: _Outgoing, reason: str) -> Failure:
        return Failure(
            arm=str(outgoing.content.config_records[TEXTS].get("arm", "")),
            user=self._name(outgoing.node),
            phase=outgoing.message_type,
            kind=_error_kind(reason),
            reason=_safe_reason(reason),
        )

    def _name(self, node: int) -> str:
        return self._users.get(node, f"node {node}")

    # What follows hands over to the wrapped grid, as Flower's Grid demands.

    def set_run(self, run: Any) -> None:
        """Set the run."""
        self._grid.set_run(run)

    @property
    def run(self) -> Any:
        """The run."""
        return self._grid.run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Create a message."""
        return Message(content, dst_node_id, message_type, ttl=ttl or TTL_S, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """The nodes that are there now."""
        return self._grid.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Push without accounting."""
        return self._grid.push_messages(list(messages))

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Pull without accounting."""
        return self._grid.pull_messages(set(message_ids))


@dataclass(frozen=True, slots=True)
class _Outgoing:
    """What to send, and again if it fails: a Flower message can be sent only once."""

    node: int
    message_type: str
    group_id: str
    content: RecordDict

    @staticmethod
    def of(message: Message) -> _Outgoing:
        metadata = message.metadata
        return _Outgoing(
            metadata.dst_node_id, metadata.message_type, metadata.group_id, message.content
        )

    def message(self) -> Message:
        return Message(
            self.content, self.node, self.message_type, ttl=TTL_S, group_id=self.group_id
        )


def _error_kind(reason: str) -> str:
    if own := re.search(r"conf\.errors\.(\w+)", reason):
        return own[1]
    names = _ERROR_CLASS.findall(reason)
    inner = [name for name in names if name not in ("RayTaskError", "ClientAppException")]
    return inner[-1] if inner else (names[0] if names else "Unknown")


def _safe_reason(reason: str) -> str:
    """Our own errors name no users' text and are quoted; of others only the class is told."""
    if own := _OWN_ERROR.search(reason):
        return own["text"]
    return reason if "\n" not in reason and len(reason) < 80 else _error_kind(reason)


def ignore_reply() -> None:
    """Default of ``on_reply``."""
