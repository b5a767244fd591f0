"""A Grid that retries, accounts and reports: every message of the strategy goes through it.

Replies come in completion order and error replies may name another node as their source, so a reply
is matched by the message it answers. A message that fails, or gets a reply that cannot be read, is
sent once more (``retries``). When a process died, nobody can tell whose message it was that killed
it, so the messages that were lost with it get one more chance, each alone. What still fails is kept
as a :class:`MessageFailure` under the user's id, and the others' results are untouched. The clock
that ends waiting starts with the last sign of life, never with the sending.
"""

from __future__ import annotations

import builtins
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flwr.app import Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from conf.errors import ProtocolError
from lamp import tasks
from lamp.tasks import Task
from protocol.answers import misfit
from protocol.codec import TEXTS, decode, encode
from protocol.errors import ERROR_CLASSES, told
from protocol.messages import (
    DEVICE_TO_SERVER,
    PROTOCOL_VERSION,
    AnswerReply,
    HelloReply,
    HelloRequest,
)
from protocol.settings import settings_from_json
from strategy.ledger import DOWN, UP, Ledger

POLL_S = 0.05
POLLED = 100  # a look at so many open messages is worth a pause of POLL_S
RESTART_S = 2.0  # what Ray needs to bring a dead actor back
RESTARTS = 60  # how often it is looked whether an actor is back
GONE = "the node is gone"
LATE = "no reply in time"
TTL_S = 7 * 24 * 3600.0
_DEATHS = ("ActorDiedError", "ActorUnavailableError", "WorkerCrashedError", "OutOfMemoryError")
_BUILT_IN = {
    name
    for name, each in vars(builtins).items()
    if isinstance(each, type) and issubclass(each, Exception)
}


@dataclass(frozen=True, slots=True)
class MessageFailure:
    """A message that got no good reply, after all retries."""

    arm: str
    user: str
    phase: str
    kind: str
    reason: str


class AccountedGrid(Grid):
    """Wraps Flower's Grid; Strategy.start uses it like any other."""

    def __init__(
        self,
        grid: Grid,
        ledger: Ledger,
        retries: int,
        stall_s: float,
        end_hung: Callable[[], int] = lambda: 0,
    ) -> None:
        """Wrap ``grid``.

        Args:
            grid: Flower's own grid.
            ledger: Gets one entry for every message and reply.
            retries: How often a failed message is sent again.
            stall_s: Give up on what is open after so many seconds without any reply.
            end_hung: Ends the processes that gave no sign of life and returns how many; what they
                held then comes back as failed.
        """
        self._grid, self._ledger = grid, ledger
        self._retries, self._stall_s, self._end_hung = retries, stall_s, end_hung
        self._users: dict[int, str] = {}
        self._answered_by: dict[str, str] = {}
        self._unnamed: list[Callable[[], None]] = []
        self.failures: list[MessageFailure] = []
        self.on_reply: Callable[[Message | None], None] = ignore_reply

    def know(self, users: dict[int, str]) -> None:
        """Learn which node is whose device; what crossed before gets its users in the ledger."""
        self._users = dict(users)
        waiting, self._unnamed = self._unnamed, []
        with self._ledger.together():
            for note in waiting:
                note()

    def user_of(self, reply: Message) -> str:
        """Whose device a good reply came from: the node that was asked, whatever the reply says."""
        return self._answered_by[reply.metadata.reply_to_message_id]

    def take_failures(self) -> list[MessageFailure]:
        """Return the failures so far and forget them."""
        taken, self.failures = self.failures, []
        return taken

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Send each message to its node and return the good replies, in order of their users.

        :attr:`on_reply` is called for each good reply as it arrives, and with None for each message
        that failed for good; failures are kept in :attr:`failures`. ``timeout`` bounds the whole
        call in seconds.
        """
        limit = None if timeout is None else time.monotonic() + timeout
        todo = [_Outgoing.of(message) for message in messages]
        good, bad = self._round_trip(todo, limit)
        for _attempt in range(self._retries):
            if not bad:
                break
            self._wait_for_the_dead(bad)
            # the other way round: what stood behind a message that kills now stands before it
            more, bad = self._round_trip([each.outgoing for each in reversed(bad)], limit)
            good += more
        alone, bad = self._each_alone(bad, limit)
        self.failures += [self._failure(each) for each in bad]
        for _ in bad:
            self.on_reply(None)
        return sorted(good + alone, key=self.user_of)  # replies arrive in completion order

    def _each_alone(
        self, bad: Sequence[_Bad], limit: float | None
    ) -> tuple[list[Message], list[_Bad]]:
        """Send alone what was lost with a process, so that no other message can be to blame.

        Also what failed by itself later: it was looked at once less than others.
        """
        good: list[Message] = []
        still: list[_Bad] = []
        for each in bad:
            may_be_innocent = each.outgoing.was_lost and not (each.died and len(bad) == 1)
            if not self._retries or not may_be_innocent:
                still.append(each)
                continue
            replies, failed = self._alone(each, limit)
            good += replies
            still += failed
        return good, still

    def _alone(self, bad: _Bad, limit: float | None) -> tuple[list[Message], list[_Bad]]:
        """Send one message once more, to a process that was seen alive just before."""
        self._wait_for_the_dead([bad])
        return self._round_trip([bad.outgoing], limit)

    def _wait_for_the_dead(self, bad: Sequence[_Bad]) -> None:
        """Wait until a process that died is back: until then it fails whatever it is given.

        Flower's pool hands out the actor that came back last, a dead one too, so one dead actor
        would take all open messages with it.
        """
        lost = next((each for each in bad if each.died), None)
        for _ in range(RESTARTS):
            if lost is None or self._is_alive(lost.outgoing.node):
                return
            time.sleep(RESTART_S)

    def _is_alive(self, node: int) -> bool:
        """Ask a node who it is, which costs it nothing."""
        body = encode(HelloRequest(version=PROTOCOL_VERSION))
        probe = _Outgoing(node, HelloRequest.TYPE, "hello", body)
        self._note_down(probe)
        ids = {each for each in self._grid.push_messages([probe.message()]) if each}
        end = time.monotonic() + self._stall_s
        while ids and time.monotonic() < end:
            for reply in self._grid.pull_messages(set(ids)):
                if not reply.has_error():
                    self._note_up(probe, reply.content)
                return not _Bad(probe, str(reply.error.reason) if reply.has_error() else "").died
            time.sleep(POLL_S)
        return False

    def _round_trip(
        self, todo: Sequence[_Outgoing], limit: float | None
    ) -> tuple[list[Message], list[_Bad]]:
        with self._ledger.together():  # before it is sent: all that crosses is in the ledger
            for outgoing in todo:
                self._note_down(outgoing)
        ids = list(self._grid.push_messages([outgoing.message() for outgoing in todo]))
        sent = list(zip(ids, todo, strict=True))
        waiting = {message_id: outgoing for message_id, outgoing in sent if message_id}
        bad = [_Bad(outgoing, GONE) for message_id, outgoing in sent if not message_id]
        good: list[Message] = []
        last_sign, ended = time.monotonic(), False
        while waiting:
            replies = list(self._grid.pull_messages(set(waiting)))  # a copy: the grid changes it
            answered = [(each, waiting.pop(each.metadata.reply_to_message_id)) for each in replies]
            accepted, refused = self._accept([a for a in answered if not a[0].has_error()])
            good, bad = good + accepted, bad + refused
            bad += [_Bad(out, _reason(each.error)) for each, out in answered if each.has_error()]
            now = time.monotonic()
            last_sign = now if replies else last_sign
            late = limit is not None and now > limit
            if not late and now - last_sign > self._stall_s and not ended and self._end_hung():
                last_sign, ended = now, True
            elif late or now - last_sign > self._stall_s:
                bad += [_Bad(outgoing, LATE) for outgoing in waiting.values()]
                break
            if waiting:
                time.sleep(_pause_s(len(waiting)))
        for each in bad:
            each.outgoing.was_lost |= each.died
        return good, bad

    def _accept(
        self, answered: Sequence[tuple[Message, _Outgoing]]
    ) -> tuple[list[Message], list[_Bad]]:
        """Take replies: into the ledger first, then, those that can be read, to who waits."""
        with self._ledger.together():
            for reply, outgoing in answered:
                self._answered_by[reply.metadata.reply_to_message_id] = self._name(outgoing.node)
                self._note_up(outgoing, reply.content)
        read = [
            (reply, _Bad(out, ProtocolError.__name__, self._fault(reply, out)))
            for reply, out in answered
        ]
        good = [reply for reply, bad in read if not bad.fault]
        for reply in good:
            self.on_reply(reply)
        return good, [bad for _, bad in read if bad.fault]

    def _fault(self, reply: Message, outgoing: _Outgoing) -> str:
        return _unreadable(reply, outgoing, self._users.get(outgoing.node))

    def _note_down(self, outgoing: _Outgoing) -> None:
        if outgoing.node not in self._users:
            self._unnamed.append(lambda: self._write_down(outgoing))
        else:
            self._write_down(outgoing)

    def _note_up(self, outgoing: _Outgoing, content: RecordDict) -> None:
        if outgoing.node not in self._users:
            self._unnamed.append(lambda: self._write_up(outgoing, content))
        else:
            self._write_up(outgoing, content)

    def _write_down(self, outgoing: _Outgoing) -> None:
        outgoing.digest = self._ledger.message(
            self._name(outgoing.node), DOWN, outgoing.message_type, outgoing.content
        )

    def _write_up(self, outgoing: _Outgoing, content: RecordDict) -> None:
        self._ledger.message(
            self._name(outgoing.node), UP, outgoing.message_type, content, outgoing.digest
        )

    def _failure(self, bad: _Bad) -> MessageFailure:
        outgoing = bad.outgoing
        return MessageFailure(
            arm=outgoing.arm,
            user=self._name(outgoing.node),
            phase=outgoing.message_type,
            kind=bad.kind,
            reason=bad.words,
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


@dataclass(slots=True)
class _Outgoing:
    """What to send, and again if it fails: a Flower message can be sent only once.

    Attributes:
        digest: Content hash, once it stands in the ledger.
        was_lost: Whether a process died with it, perhaps by another message.
    """

    node: int
    message_type: str
    group_id: str
    content: RecordDict
    digest: str = ""
    was_lost: bool = False

    @staticmethod
    def of(message: Message) -> _Outgoing:
        metadata = message.metadata
        return _Outgoing(
            metadata.dst_node_id, metadata.message_type, metadata.group_id, message.content
        )

    @property
    def arm(self) -> str:
        """Arm that the message is about; "" where it serves all."""
        texts: Mapping[str, Any] = self.content.config_records.get(TEXTS, {})
        return str(texts.get("arm", ""))

    def message(self) -> Message:
        return Message(
            self.content, self.node, self.message_type, ttl=TTL_S, group_id=self.group_id
        )


@dataclass(frozen=True, slots=True)
class _Bad:
    """What got no good reply, and why."""

    outgoing: _Outgoing
    reason: str
    fault: str = ""  # what is wrong with a reply, in words of ours

    @property
    def kind(self) -> str:
        """Class of the error, of a fixed list."""
        return _error_kind(self.reason)

    @property
    def words(self) -> str:
        """Why, in words of ours alone: nothing that a device sent is quoted."""
        if self.fault:
            return self.fault
        if self.reason in (GONE, LATE):
            return self.reason
        return told(self.kind) or f"{self.kind}: see the log of Flower and Ray"

    @property
    def died(self) -> bool:
        """Whether the process died, by this message or by another one."""
        return any(name in self.reason for name in _DEATHS)


def _unreadable(reply: Message, outgoing: _Outgoing, user: str | None) -> str:
    """Why a device's reply is none; "" for a good one. A device may run anything.

    Args:
        reply: What came.
        outgoing: What it answers.
        user: Whose device was asked; None while it has not said whose it is.
    """
    kind = outgoing.message_type
    try:
        body = decode(DEVICE_TO_SERVER[kind], reply.content)
    except ProtocolError as error:
        return str(error).partition(", got also")[0]  # names of further fields are the device's
    except (ArithmeticError, LookupError, MemoryError, TypeError, ValueError):
        return f"{kind}: the reply cannot be read"
    if isinstance(body, HelloReply):  # whose device it is the registry decides
        return ""
    if user is not None and getattr(body, "user_id", user) != user:
        return f"{kind}: the reply names another user"
    if getattr(body, "arm", outgoing.arm) != outgoing.arm:
        return f"{kind}: the reply names another arm"
    if isinstance(body, AnswerReply) and (fault := misfit(body, _task_of(outgoing))):
        return f"{kind}: {fault}"
    return ""


def _task_of(outgoing: _Outgoing) -> Task:
    """The task that a device was asked about."""
    settings = str(outgoing.content.config_records[TEXTS]["settings"])
    return tasks.task(settings_from_json(settings).task)


def _pause_s(waiting: int) -> float:
    """Seconds until the next look: Flower goes through all open messages at each.

    The pause grows with their number, so looking takes the same share of the time at any number.
    """
    return POLL_S * max(1.0, waiting / POLLED)


def _reason(error: Error) -> str:
    return GONE if error.code == ErrorCode.NODE_UNAVAILABLE else str(error.reason)


def _error_kind(reason: str) -> str:
    """The class that a reason names, of a fixed list: a device's, Ray's, Python's own."""
    if reason in (GONE, LATE):
        return "Lost"
    words = re.findall(r"\w+", reason)
    named = [name for name in words if name in _DEATHS or name in ERROR_CLASSES]
    built_in = [name for name in words if name in _BUILT_IN]
    return next(iter((*named, *built_in)), "Unknown")


def ignore_reply(_reply: Message | None) -> None:
    """Default of ``on_reply``."""
