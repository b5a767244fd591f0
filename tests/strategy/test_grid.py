"""Failing messages are sent again; what still fails stands under its user's id."""

from __future__ import annotations

from dataclasses import replace

import pytest
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode

from conf.errors import DataError, RunError
from protocol.codec import TEXTS, decode, encode
from protocol.errors import told
from protocol.messages import PROTOCOL_VERSION, AdaptReply, HelloReply, HelloRequest
from sim.run.inline import InlineGrid
from storage import jsonlines
from strategy import grid as grid_module
from strategy.grid import AccountedGrid
from strategy.ledger import Ledger
from strategy.registry import discover_clients, wait_for_nodes

REQUEST = HelloRequest(version=PROTOCOL_VERSION)
ADAPTED = AdaptReply(
    user_id="", arm="", steps=0, records=0, synthetic=0, losses=(), tokens=0, seconds=0.0,
    peak_memory_bytes=0, adapter_bytes=0,
)  # fmt: skip


def make_app(behave) -> ClientApp:
    app = ClientApp()

    @app.query("hello")
    def hello(message: Message, context: Context) -> Message:
        return Message(encode(behave(context.node_config["partition-id"])), reply_to=message)

    return app


def reply(user: str, version: int = PROTOCOL_VERSION) -> HelloReply:
    return HelloReply(user_id=user, version=version)


class Flaky:
    """Fails for one node, so many times."""

    def __init__(self, node: int, failures: int, error: Exception):
        self.node, self.left, self.error = node, failures, error

    def __call__(self, node: int) -> HelloReply:
        if node == self.node and self.left:
            self.left -= 1
            raise self.error
        return reply(f"user-{node}")


@pytest.fixture
def grid(tmp_path):
    def make(behave, num_nodes=3, retries=1):
        inner = InlineGrid(make_app(behave), num_nodes, {})
        return AccountedGrid(inner, Ledger(tmp_path / "ledger.jsonl"), retries, stall_s=5)

    return make


def messages(grid) -> list[Message]:
    return [
        Message(encode(REQUEST), node, REQUEST.TYPE, ttl=60, group_id="g")
        for node in grid.get_node_ids()
    ]


def test_a_message_that_failed_once_is_sent_again_and_marked_as_redelivery(grid, tmp_path):
    accounted = grid(Flaky(1, 1, ValueError("boom")))
    assert len(accounted.send_and_receive(messages(accounted))) == 3
    assert accounted.take_failures() == []
    accounted.know({1000 + node: f"user-{node}" for node in range(3)})
    down = [
        line["redelivery"]
        for line in jsonlines.read(tmp_path / "ledger.jsonl")
        if line["direction"] == "server -> device"
    ]
    assert down == [False, False, False, True]


def test_what_keeps_failing_is_told_by_user_and_the_others_are_untouched(grid):
    accounted = grid(Flaky(1, 9, DataError("user 1: history.json: broken")))
    accounted.know({1000: "a", 1001: "b", 1002: "c"})
    replies = accounted.send_and_receive(messages(accounted))
    assert [accounted.user_of(each) for each in replies] == ["a", "c"]
    (failure,) = accounted.take_failures()
    assert (failure.user, failure.phase, failure.kind) == ("b", "query.hello", "DataError")
    assert failure.reason == told("DataError")  # the words of a device are nobody's but its own


def test_texts_of_foreign_errors_are_not_quoted(grid):
    accounted = grid(Flaky(0, 9, ValueError("the user's private text")))
    accounted.send_and_receive(messages(accounted))
    (failure,) = accounted.take_failures()
    assert "private" not in failure.reason + failure.kind
    assert failure.kind == "ValueError"


def test_replies_come_in_the_order_of_their_users_not_of_their_arrival(grid):
    accounted = grid(lambda node: reply(f"user-{node}"))
    accounted.know({1000: "c", 1001: "a", 1002: "b"})
    replies = accounted.send_and_receive(messages(accounted))
    assert [accounted.user_of(each) for each in replies] == ["a", "b", "c"]
    assert [decode(HelloReply, each.content).user_id for each in replies] == [
        "user-1",
        "user-2",
        "user-0",
    ]


def test_a_node_that_never_answers_ends_as_a_failure(grid):
    accounted = grid(lambda node: reply(f"user-{node}"))
    accounted._stall_s = 0.2
    accounted._grid.pull_messages = lambda ids: []
    assert accounted.send_and_receive(messages(accounted)) == []
    assert {failure.reason for failure in accounted.take_failures()} == {"no reply in time"}


def test_the_roster_is_ordered_by_user_id(grid):
    accounted = grid(lambda node: reply("zyx"[node]))
    nodes = wait_for_nodes(accounted, 3, limit_s=1)
    assert discover_clients(accounted, nodes).nodes == {"x": 1002, "y": 1001, "z": 1000}


def test_two_devices_of_one_user_are_refused(grid):
    accounted = grid(lambda node: reply("same"))
    with pytest.raises(RunError, match="user same: two nodes"):
        discover_clients(accounted, wait_for_nodes(accounted, 3, limit_s=1))


def test_another_protocol_version_is_refused(grid):
    accounted = grid(lambda node: reply(f"u{node}", version=99))
    with pytest.raises(RunError, match=f"expected protocol version {PROTOCOL_VERSION}, got 99"):
        discover_clients(accounted, wait_for_nodes(accounted, 3, limit_s=1))


def test_too_few_nodes_are_told_with_the_remedy(grid):
    accounted = grid(lambda node: reply(f"u{node}"))
    with pytest.raises(RunError, match="expected 4, got 3"):
        wait_for_nodes(accounted, 4, limit_s=0)


def test_a_sending_and_what_comes_back_together_are_one_flush_each(grid, tmp_path, monkeypatch):
    flushed = []
    accounted = grid(lambda node: reply(f"user-{node}"))
    accounted.know({1000 + node: f"user-{node}" for node in range(3)})
    monkeypatch.setattr(
        "strategy.ledger.jsonlines.append", lambda _path, rows: flushed.append(len(rows))
    )
    accounted.send_and_receive(messages(accounted))
    assert flushed == [3, 3]


def test_what_is_sent_stands_in_the_ledger_before_it_is_pushed(grid, tmp_path, monkeypatch):
    accounted = grid(lambda node: reply(f"user-{node}"))
    accounted.know({1000 + node: f"user-{node}" for node in range(3)})
    monkeypatch.setattr(InlineGrid, "push_messages", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        accounted.send_and_receive(messages(accounted))
    assert [line["user"] for line in jsonlines.read(tmp_path / "ledger.jsonl")] == [
        "user-0",
        "user-1",
        "user-2",
    ]


class LeavingGrid(InlineGrid):
    """Its first node is silent, and Flower says so in its own words."""

    def pull_messages(self, message_ids):
        replies = super().pull_messages(message_ids)
        return [self._left(each) if each.metadata.src_node_id == 1000 else each for each in replies]

    def _left(self, reply: Message) -> Message:
        error = Error(ErrorCode.NODE_UNAVAILABLE, "Error: Node Unavailable - no heartbeat " * 4)
        reply.__dict__.update(_content=None, _error=error)
        return reply


def test_a_device_that_went_away_fails_alone(tmp_path):
    inner = LeavingGrid(make_app(lambda node: reply(f"user-{node}")), 3, {})
    accounted = AccountedGrid(inner, Ledger(tmp_path / "ledger.jsonl"), retries=0, stall_s=60)
    assert len(accounted.send_and_receive(messages(accounted))) == 2
    assert [(each.user, each.reason) for each in accounted.failures] == [
        ("node 1000", "the node is gone")
    ]


class PoisonedGrid(InlineGrid):
    """Flower's pool with one actor that one node's message kills, as Ray shows it.

    While the actor is coming back everything it is given fails at once.
    """

    BACK_AFTER = 4

    def __init__(self, *arguments, killers):
        super().__init__(*arguments)
        self._killers, self._down = killers, 0

    def _deliver(self, message):
        kind = message.metadata.message_type
        if self._down:
            self._down -= 1
            return self._fail(message, "ActorUnavailableError: unavailable: IOError: restarting")
        if message.metadata.dst_node_id in self._killers and kind == "train.adapt":
            self._down = self.BACK_AFTER
            return self._fail(message, "ActorDiedError: RpcError: socket closed")
        return super()._deliver(message)

    def _fail(self, message, reason):
        answered = super()._deliver(message)
        reply = self._replies[answered]
        self._replies[answered] = Message(
            Error(0, f"<class 'ray.exceptions.{reason}"), reply_to=reply
        )
        self._replies[answered].metadata.__dict__["_reply_to_message_id"] = answered
        return answered


@pytest.mark.parametrize("killers", [{1000}, {1003}, {1002, 1005}])
def test_a_process_that_a_message_kills_takes_nobody_elses_message_with_it(
    tmp_path, monkeypatch, killers
):
    monkeypatch.setattr(grid_module, "RESTART_S", 0.0)
    app = make_app(lambda node: reply(f"user-{node}"))

    @app.train("adapt")
    def adapt(message: Message, context: Context) -> Message:
        own = replace(ADAPTED, user_id=f"u{context.node_config['partition-id']}")
        return Message(encode(own), reply_to=message)

    inner = PoisonedGrid(app, 8, {}, killers=killers)
    accounted = AccountedGrid(inner, Ledger(tmp_path / "ledger.jsonl"), retries=1, stall_s=5)
    accounted.know({1000 + node: f"u{node}" for node in range(8)})
    asked = [Message(encode(REQUEST), 1000 + n, "train.adapt", ttl=60) for n in range(8)]
    answered = accounted.send_and_receive(asked)
    failed = {failure.user for failure in accounted.take_failures()}
    assert failed == {f"u{node - 1000}" for node in killers}
    assert len(answered) == 8 - len(killers)


@pytest.mark.parametrize("fault", ["records", "field", "type"])
def test_a_reply_that_cannot_be_read_fails_its_user_alone(tmp_path, fault):
    app = ClientApp()

    @app.query("hello")
    def hello(message: Message, context: Context) -> Message:
        node = context.node_config["partition-id"]
        content = encode(reply(f"user-{node}"))
        if node == 1 and fault == "records":
            content = RecordDict()
        elif node == 1:
            content[TEXTS] = ConfigRecord({"user_id": 7 if fault == "type" else "x", "held": []})
        return Message(content, reply_to=message)

    ledger = Ledger(tmp_path / "ledger.jsonl")
    accounted = AccountedGrid(InlineGrid(app, 3, {}), ledger, retries=1, stall_s=5)
    accounted.know({1000 + node: f"user-{node}" for node in range(3)})
    heard = []
    accounted.on_reply = heard.append
    answered = accounted.send_and_receive(messages(accounted))
    assert [accounted.user_of(each) for each in answered] == ["user-0", "user-2"]
    (failure,) = accounted.take_failures()
    assert (failure.user, failure.kind) == ("user-1", "ProtocolError")
    assert heard.count(None) == 1
    up = [row for row in jsonlines.read(tmp_path / "ledger.jsonl") if row["kind"] == REQUEST.TYPE]
    assert sum(row["direction"] == "device -> server" for row in up) == 4  # the bad one twice
