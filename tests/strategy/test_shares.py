"""Shares of devices that may say anything."""

from __future__ import annotations

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from lamp.records import Pair
from protocol.codec import encode
from protocol.messages import ShareReply
from sim.run.inline import InlineGrid
from strategy.grid import AccountedGrid
from strategy.ledger import Ledger
from strategy.progress import LoggedProgress
from strategy.shares import collect_shares

PAIR = Pair("1", "x", "y")
NODES = {"ana": 1000, "ben": 1001}


def test_a_share_without_a_count_for_each_ratio_fails_its_user_alone(tmp_path):
    app = ClientApp()

    @app.query("share")
    def share(message: Message, context: Context) -> Message:
        index = context.node_config["partition-id"]
        counts = (1,) if index else (1, 1, 1)
        body = ShareReply(user_id=list(NODES)[index], pairs=(PAIR,), counts=counts)
        return Message(encode(body), reply_to=message)

    grid = AccountedGrid(InlineGrid(app, 2, {}), Ledger(tmp_path / "ledger.jsonl"), 0, stall_s=5)
    grid.know({node: user for user, node in NODES.items()})
    collected = collect_shares(grid, NODES, [0.5], LoggedProgress())
    assert collected.shares == {"ben": {0.5: (PAIR,)}}
    (failure,) = collected.failures
    assert (failure.user, failure.kind) == ("ana", "ProtocolError")


def test_nobody_is_asked_where_no_method_needs_a_share(tmp_path):
    grid = AccountedGrid(InlineGrid(ClientApp(), 2, {}), Ledger(tmp_path / "l.jsonl"), 0, stall_s=5)
    assert collect_shares(grid, NODES, [], LoggedProgress()).shares == {}
    assert not (tmp_path / "l.jsonl").exists()
