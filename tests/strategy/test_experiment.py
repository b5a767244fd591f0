"""One experiment's steps, each against devices that may say anything."""

from __future__ import annotations

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from lamp.records import Pair
from protocol.codec import encode
from protocol.messages import ShareReply
from sim.run.inline import InlineGrid
from storage import jsonlines
from strategy.arms import make_arms
from strategy.experiment import _collect_shares
from strategy.grid import AccountedGrid
from strategy.ledger import Ledger
from strategy.progress import LoggedProgress
from strategy.run_log import RunLog

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
    arms, log = make_arms(["cdcda"], [0.5]), RunLog(tmp_path)
    shares = _collect_shares(grid, NODES, arms, log, LoggedProgress())
    assert shares == {"ben": {0.5: (PAIR,)}}
    (failure,) = jsonlines.read(tmp_path / "failures.jsonl")
    assert (failure["user"], failure["kind"]) == ("ana", "ProtocolError")
