"""A user who shares less later: the cloud forgets, the adapters that saw it answer no more."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from clients import folder as device_folder
from clients import sent
from clients.folder import Policy
from clients.outbound import grant
from clients.withdrawal import withdraw
from conf.compose import compose, to_json
from conf.errors import ConfigError, RunError
from lamp.records import Pair, UserHistory
from sim.commands.cache import main as cache_command
from sim.commands.withdraw import main, withdraw_user
from sim.folders import RunFolder
from sim.run.provision import Preference, write_policies
from storage import atomic, jsonlines
from strategy.augmentation import record_hash
from strategy.cache import Cache

NUM_RECORDS = 10


@pytest.fixture
def run(tmp_path) -> RunFolder:
    """Ana shared 8 of 10 records; ben shared one of the same texts. One adapter saw two of hers."""
    folder = RunFolder(tmp_path / "runs" / "r")
    pairs = tuple(Pair(str(n), f"text {n}", "y") for n in range(NUM_RECORDS))
    for user in ("ana", "ben"):
        history = UserHistory(user, (), pairs, ())
        device_folder.create(folder.devices, history, Policy(0.8), b"s" * 32)
    words = [f"paths.cache={tmp_path / 'cache'}", f"paths.runs={tmp_path / 'runs'}"]
    atomic.write_text(folder.config, to_json(compose(words)))
    write_policies(
        folder.path / "policies.csv", {u: Preference(0.8, "open") for u in ("ana", "ben")}
    )
    return folder


def device(run: RunFolder, user: str = "ana") -> device_folder.Device:
    return device_folder.read(run.devices / device_folder.folder_name(user))


def cache_of(run: RunFolder) -> Cache:
    return Cache(run.path.parents[1] / "cache" / "augmentation.sqlite")


def store_adapter(own: device_folder.Device, arm: str, sources: list[str]) -> Path:
    folder = own.folder / "adapters" / arm
    with atomic.new_folder(folder, marker={"shared_sources": sources}):
        pass
    return folder


def test_the_device_shares_a_prefix_of_what_it_shared_and_never_more_again(run):
    before = grant(device(run), [1.0]).pairs
    withdrawal = withdraw(device(run).folder, 0.3)
    assert grant(device(run), [1.0, 2.0]).pairs == before[:3]
    assert {pair.id for pair in withdrawal.records} == {pair.id for pair in before[3:]}
    device_folder.write_policy(device(run).folder, Policy(1.0, device(run).policy.withdrawn))
    again = {pair.id for pair in grant(device(run), [1.0]).pairs}
    assert again.isdisjoint(pair.id for pair in before[3:])


def test_sharing_more_is_no_withdrawal(run):
    with pytest.raises(ConfigError, match=r"shares at most 0.8 already.*got 0.9"):
        withdraw(device(run).folder, 0.9)


def test_only_what_no_other_user_holds_is_deleted_and_a_tombstone_stands(run):
    shared, cache = grant(device(run), [1.0]).pairs, cache_of(run)
    hashes = [record_hash(pair) for pair in shared]
    cache.put({f"reply-{name}": name for name in hashes})
    cache.hold("ana", {name: [f"reply-{name}"] for name in hashes})
    cache.hold("ben", {hashes[-1]: [f"reply-{hashes[-1]}"]})
    written = run.path / "candidates.jsonl"
    jsonlines.append(written, [{"record": name, "input": "new"} for name in hashes])
    withdrawal, deleted = withdraw_user(run, "ana", 0.3)
    assert (withdrawal.newly, deleted) == (5, 4)
    assert [row["record"] for row in jsonlines.read(written)] == hashes[:3]
    assert set(cache.get(f"reply-{name}" for name in hashes).values()) == {*hashes[:3], hashes[-1]}
    (line,) = jsonlines.read(run.path / "ledger.jsonl")
    assert (line["user"], line["kind"], line["records"]) == ("ana", "withdrawal", 5)
    assert "ana,0.3,open\nben,0.8,open" in (run.path / "policies.csv").read_text()


def test_the_same_command_finishes_what_a_crash_left(run):
    cache = cache_of(run)
    names = [record_hash(pair) for pair in grant(device(run), [1.0]).pairs]
    cache.put(dict.fromkeys(names, 1))
    cache.hold("ana", {name: [name] for name in names})
    withdraw(device(run).folder, 0.3)  # the device's part alone
    withdrawal, deleted = withdraw_user(run, "ana", 0.3)
    assert (withdrawal.newly, len(withdrawal.records), deleted) == (0, 5, 5)


def test_adapters_that_saw_withdrawn_records_are_stale_and_answer_no_more(run):
    from clients import adapters

    own = device(run)
    shared = [pair.id for pair in grant(own, [1.0]).pairs]
    saw, saw_not, local = (
        store_adapter(own, arm, sources)
        for arm, sources in (("cdcda", shared), ("cdcda@0.3", shared[:3]), ("direct_ft", []))
    )
    withdrawal = withdraw(own.folder, 0.3)
    assert withdrawal.stale == ("cdcda",)
    assert sorted(json.loads((saw / "STALE.json").read_text())["withdrawn"]) == sorted(shared[3:])
    assert not (saw_not / "STALE.json").exists()
    assert not (local / "STALE.json").exists()
    with pytest.raises(RunError, match="'cdcda' saw records that were withdrawn"):
        adapters.load_into(own, "cdcda", None)
    store_adapter(own, "cdcda", shared[:3])  # trained anew
    assert not (saw / "STALE.json").exists()


def test_the_command_says_what_it_did(run, capsys):
    store_adapter(device(run), "cdcda", [pair.id for pair in grant(device(run), [1.0]).pairs])
    assert main([f"run={run.path}", "user=ana", "ratio=0.3"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "User ana shares at most 0.3 from now on: 5 records withdrawn" in told
    assert "Stale adapters: cdcda. python -m sim resume run=r trains them anew." in told


def test_the_command_refuses_strangers_and_nonsense(run):
    with pytest.raises(RunError, match="user=eve: not in this run; it has ana, ben"):
        main([f"run={run.path}", "user=eve", "ratio=0.3"])
    with pytest.raises(ConfigError, match="from 0 to 1, got '2'"):
        main([f"run={run.path}", "user=ana", "ratio=2"])


def test_cache_prune_says_what_went(run, capsys):
    cache_of(run).put({"nobody's": 1})
    folder = run.path.parents[1] / "cache"
    assert cache_command(["prune", f"cache={folder}"]) == 0
    assert "1 cached value that nobody held and 0 damaged deleted, 0 left" in " ".join(
        capsys.readouterr().out.split()
    )
    with pytest.raises(ConfigError, match="expected the word prune, got nothing"):
        cache_command([])


def test_after_a_redaction_became_stricter_what_was_sent_is_still_found(run):
    """The record left as it was; now it would leave redacted, under another hash."""
    from clients.withdrawal import hashes_as_sent

    own = device(run)
    pairs = tuple(replace(pair, input=f"mail a@b.org {pair.id}") for pair in own.history.pairs)
    path = device_folder.create(
        run.devices, replace(own.history, pairs=pairs), Policy(0.8), b"s" * 32
    )
    before = {pair.id: record_hash(pair) for pair in grant(device(run), [1.0]).pairs}
    sent.note_records(path, before)
    device_folder.write_policy(path, Policy(0.8, redact=("input",)))
    withdrawal = withdraw(path, 0.0)
    assert set(before.values()) <= set(withdrawal.hashes)
    assert set(before.values()) <= set(hashes_as_sent(device(run), before))


def test_no_byte_of_what_was_withdrawn_stands_in_the_clouds_files(run):
    cache = cache_of(run)
    names = [record_hash(pair) for pair in grant(device(run), [1.0]).pairs]
    cache.put({name: f"canary of {name}" for name in names})
    cache.hold("ana", {name: [name] for name in names})
    folder = run.path.parents[1] / "cache"
    withdraw_user(run, "ana", 0.0)
    written = b"".join(path.read_bytes() for path in folder.glob("augmentation.sqlite*"))
    assert b"canary" not in written


def test_the_weights_of_a_stale_adapter_are_deleted(run):
    shared = [pair.id for pair in grant(device(run), [1.0]).pairs]
    stored = store_adapter(device(run), "cdcda", shared)
    (stored / "adapter_model.safetensors").write_bytes(b"weights")
    withdraw(device(run).folder, 0.3)
    assert not (stored / "adapter_model.safetensors").exists()


def test_loading_adapters_says_nothing_of_kernels_that_are_not_there():
    done = subprocess.run(
        [sys.executable, "-c", "import clients.adapters"],
        cwd=Path(__file__).resolve().parents[3],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("", "")
