"""What the ledger tells one user: records sent, weights sent, and what oracles read."""

from __future__ import annotations

from typing import Any

import pytest

from conf.errors import RunError
from sim.ledger import _answer, entries_of

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
