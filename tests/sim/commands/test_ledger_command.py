"""What the ledger tells one user: records sent, weights sent, and what oracles read."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from flwr.app import Message

from clients import folder
from clients.app import app
from clients.policy import Policy
from conf.errors import RunError
from lamp.records import Pair, UserHistory
from protocol.codec import encode
from protocol.messages import ShareRequest
from sim.commands.ledger import _answer, _sent_table, _tables, entries_of
from sim.folders import RunFolder
from sim.run.inline import InlineGrid
from sim.run.ledger_check import note_head, verify
from sim.terminal import PlainConsole
from storage import atomic, chain
from strategy.grid import AccountedGrid
from strategy.ledger import Ledger
from strategy.registry import discover_clients

UP, DOWN, ORACLE = "device -> server", "server -> device", "all data in the cloud"


def entry(direction: str, kind: str, arm: str = "", records: int = 0, **more: Any) -> dict:
    made = {"user": "ana", "direction": direction, "kind": kind, "arm": arm, "records": records}
    return {**made, "hash": f"{kind}{records}", "fields": [], **more}


SHARED = [entry(UP, "query.share", records=4), entry(UP, "query.share", records=4)]
WEIGHTS = [entry(UP, "train.adapt", "fedavg", fields=["losses", "weights"])]
DOWNLOADED = [entry(DOWN, "train.adapt", "fedavg", fields=["weights"])]


def test_a_user_who_shared_reads_how_much():
    told = _answer("ana", SHARED + DOWNLOADED)
    assert "sent 4 records in 1 distinct message(s); no other record left the device." in told
    assert "weights" not in told


def test_weights_that_left_the_device_are_told():
    told = _answer("ana", WEIGHTS)
    assert told == "User ana never sent a record. LoRA weights were sent in 1 message(s)."


def test_oracles_are_named():
    told = _answer("ana", [entry(ORACLE, "history", arm, 9) for arm in ("unified", "cloud")])
    assert told.endswith("The oracles cloud, unified read the whole history.")


def test_an_endpoint_is_named():
    told = _answer("ana", [*SHARED, entry("server -> endpoint", "augment", records=4)])
    assert told.endswith("to the endpoint that writes the pairs.")


def test_an_unknown_user_is_refused():
    with pytest.raises(RunError, match="user=ben: not in this ledger; it has ana"):
        entries_of(SHARED, "ben")


@pytest.fixture
def run(tmp_path) -> RunFolder:
    """A run of two devices, whose messages went through the product's own ledger and app."""
    made = RunFolder(tmp_path / "run")
    for user in ("ana", "ben"):
        history = UserHistory(user, (), (Pair("1", "x", "y"),), ())
        folder.create(made.devices, history, Policy(1.0), user.encode() * 10 + b"xy")
    config = {"devices-root": str(made.devices), "client-limit-s": 60.0}
    grid = AccountedGrid(
        InlineGrid(app, 2, config), Ledger(made.path / "ledger.jsonl"), retries=0, stall_s=5
    )
    registry = discover_clients(grid, sorted(grid.get_node_ids()))
    body = encode(ShareRequest(ratios=(1.0,)))
    grid.send_and_receive(
        [Message(body, node, ShareRequest.TYPE, ttl=60.0) for node in registry.nodes.values()]
    )
    atomic.write_json(made.finished, {"failed": [], "ledger": note_head(made)})
    return made


def lines_of(run: RunFolder) -> list[str]:
    return (run.path / "ledger.jsonl").read_text().splitlines(keepends=True)


def test_a_ledger_as_it_was_written_is_sound(run):
    assert len(lines_of(run)) == 8
    assert verify(run, run.devices) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda lines: lines[:3] + lines[4:], "before line 4 a line is missing"),
        (lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]], "before line 3 a line is"),
        (lambda lines: [lines[0].replace("ana", "eve"), *lines[1:]], "line 1 was changed"),
        (lambda lines: lines[:-1], "1 lines are missing at the end"),
        (lambda lines: lines[1:], "before line 1 a line is missing"),
    ],
)
def test_a_line_that_is_removed_changed_or_moved_is_found(run, change, told):
    (run.path / "ledger.jsonl").write_text("".join(change(lines_of(run))))
    assert any(told in fault for fault in verify(run, run.devices))


def test_a_whole_new_chain_disagrees_with_the_devices_copies(run):
    entries = [json.loads(line) for line in lines_of(run)]
    share = next(e for e in entries if e["direction"] == UP and e["kind"] == "query.share")
    kept = [
        {key: value for key, value in entry.items() if key not in ("line", "previous")}
        for entry in entries
        if entry is not share
    ]
    (run.path / "ledger.jsonl").unlink()
    run.finished.unlink()
    chain.append(run.path / "ledger.jsonl", kept)
    assert chain.faults(run.path / "ledger.jsonl") == []
    (fault,) = verify(run, run.devices)
    assert fault.startswith(f"user {share['user']} sent query.share {share['hash'][:12]}")


def test_a_device_that_removes_a_line_of_its_copy_is_found(run):
    copy = next(run.devices.glob("*/sent.jsonl"))
    lines = copy.read_text().splitlines(keepends=True)
    copy.write_text("".join([lines[0], *lines[2:]]))
    assert any("sent.jsonl: before line 2" in fault for fault in verify(run, run.devices))


def test_at_80_columns_no_name_is_cut():
    kinds = ("evaluate.answer", "train.collect", "query.share")
    arms = ("direct_ft_matched", "cdcda_unfiltered")
    entries = [
        entry(direction, kind, arm, 9, bytes=1_234_567, redelivery=False, fields=["losses"])
        for direction in (UP, DOWN)
        for kind in kinds
        for arm in arms
    ]
    shown = io.StringIO()
    console = PlainConsole(file=shown, width=80)
    for table in (*_tables("Ledger of [run]", entries), _sent_table(entries)):
        console.print(table)
    text = shown.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert "Ledger of [run]: device -> server" in text
    assert all(text.count(f" {name}") == 9 for name in arms)
    assert all(text.count(f" {name}") == 6 for name in kinds)
