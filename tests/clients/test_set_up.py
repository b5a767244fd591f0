"""A device's owner sets the device up with one command, and takes records back with another."""

from __future__ import annotations

import json
import os
import stat

import pytest

from clients.__main__ import main
from clients.folder import read
from clients.handlers import Place, share
from lamp.records import Pair, UserHistory
from lamp.serialise import history_to_json, record_hash
from protocol.codec import encode
from protocol.messages import ShareRequest

KEY = "ab" * 32


@pytest.fixture
def own(tmp_path):
    """A folder as its owner has it: anybody may look, and nothing but the history is there."""
    pairs = tuple(Pair(f"p{n}", f"text {n} of jane@example.org", "y") for n in range(10))
    folder = tmp_path / "ana"
    folder.mkdir(mode=0o755)
    path = folder / "history.json"
    path.write_text(json.dumps(history_to_json(UserHistory("ana", (), pairs, ()))))
    path.chmod(0o644)
    return folder


def setup(own, *words: str) -> int:
    return main(["setup", f"folder={own}", *words])


def shared(own, ratio: float) -> tuple[Pair, ...]:
    """What a server gets that asks for ``ratio``."""
    place = Place((own,), 0, own / "bases", real=True)
    return share(place, encode(ShareRequest(ratios=(ratio,)))).pairs


def test_one_command_makes_policy_secret_and_order_for_the_owner_alone(own, capsys):
    before = os.umask(0)
    try:
        assert setup(own, "ratio=0.3", "task=lamp_4", f"base_keys={KEY}", "redact=input") == 0
    finally:
        os.umask(before)
    device = read(own)
    assert (device.policy.ratio, device.policy.numbers, device.policy.noise) == (
        0.3,
        "coarse",
        "system",
    )
    assert (device.policy.base_keys, device.policy.redact) == ((KEY,), ("input",))
    assert (device.policy.task.name, device.policy.task.max_new_tokens) == ("lamp_4", 48)
    assert len(device.order) == 10
    assert len(device.secret) == 32
    said = capsys.readouterr().out
    assert "at most 3 of 10 records may leave, numbers coarse, task lamp_4" in said
    for path in (own, *own.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_the_order_is_fixed_before_any_server_asks(own):
    setup(own, "ratio=0.5")
    order = read(own).order
    assert [pair.id for pair in shared(own, 1.0)] == list(order[:5])
    assert len({tuple(order), *(_order_of_another(own) for _ in range(5))}) > 1  # a fresh secret


def _order_of_another(own):
    for name in ("secret.bin", "order.json", "policy.json"):
        (own / name).unlink()
    setup(own, "ratio=0.5")
    return read(own).order


def test_it_can_be_run_again_and_changes_nothing_that_is_there(own, capsys):
    setup(own, "ratio=0.3", "numbers=none")
    before = {path.name: path.read_bytes() for path in own.iterdir()}
    assert setup(own) == 0
    assert {path.name: path.read_bytes() for path in own.iterdir()} == before
    assert setup(own, "ratio=1.0") == 2
    assert "has a policy already, beside which ratio changes nothing" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in own.iterdir()} == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "ratio is missing, for example ratio=0.3"),
        (("ratio=1.5",), "ratio must lie in"),
        (("ratio=nan",), "ana/policy.json: ratio"),
        (("ratio=much",), "ana/policy.json: ratio"),
        (("ratio=0.3", "number=coarse"), "unknown key 'number'"),
        (("ratio=0.3", "numbers=some"), "ana/policy.json: numbers"),
        (("ratio=0.3", "task=lamp_44"), "lamp_4"),
        (("ratio=0.3", "permits=texts"), "permits texts of answers but coarse numbers"),
        (("ratio=0.3", 'budget={"bits": "x\\ny"}'), "ana/policy.json: budget.bits"),
        (("ratio=0.3", "select=dac24"), "score the records at set-up"),
        (("ratio=0.3", "extra"), "expected key=value"),
    ],
)
def test_what_cannot_be_a_policy_is_refused_in_one_line(own, words, message, capsys):
    assert setup(own, *words) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_a_folder_without_a_history_is_left_alone(tmp_path, capsys):
    (tmp_path / "x").mkdir()
    assert setup(tmp_path / "x", "ratio=0.3") == 2
    assert "history.json with the user's records, there is none" in capsys.readouterr().err
    assert list((tmp_path / "x").iterdir()) == []


def test_withdrawn_records_never_leave_again_and_are_named_as_they_left(own, capsys):
    setup(own, "ratio=0.8", "redact=input")
    left = shared(own, 1.0)
    assert main(["withdraw", f"folder={own}", "ratio=0.2"]) == 0
    assert "6 records withdrawn" in capsys.readouterr().out
    assert shared(own, 1.0) == left[:2]
    from clients.withdrawal import hashes_as_sent

    device = read(own)
    hashes = hashes_as_sent(device, device.policy.withdrawn)
    assert set(hashes) == {record_hash(pair) for pair in left[2:]}
    assert main(["withdraw", f"folder={own}", "ratio=0.5"]) == 2
    assert "shares at most 0.2 already" in capsys.readouterr().err


@pytest.mark.parametrize("ratio", ["nan", "-1", "2", "x", ""])
def test_a_ratio_that_is_none_withdraws_nothing(own, ratio, capsys):
    setup(own, "ratio=0.8")
    before = (own / "policy.json").read_bytes()
    assert main(["withdraw", f"folder={own}", f"ratio={ratio}"]) == 2
    assert "ratio" in capsys.readouterr().err
    assert (own / "policy.json").read_bytes() == before
