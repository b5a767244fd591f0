"""Device folders hold what they were given, for any user id, and say what is broken."""

from __future__ import annotations

import os
import stat
from dataclasses import replace

import pytest

from clients import folder, sent
from clients.bounds import own_settings
from clients.errors import keep
from clients.folder import Policy, create, device_folders, folder_name, read
from clients.share_order import fixed
from conf.compose import compose
from conf.errors import ConfigError, DataError, ProtocolError
from conf.schema import TaskConfig
from lamp.records import Pair, ProfileItem, Query, UserHistory
from lamp.tasks import task
from protocol.settings import settings_of
from storage import atomic

SECRET = bytes(range(32))


def history(user_id: str) -> UserHistory:
    return UserHistory(
        user_id,
        profile=(ProfileItem("1", {"text": "t", "title": "h"}, "2020-01-01"),),
        pairs=(Pair("1", "t", "h"),),
        queries=(Query("q1", "Generate a headline: t2", "h2"),),
    )


@pytest.mark.parametrize("user_id", ["17", "../x", "", "a/b\\c", "é" * 400, "\ud800", "."])
def test_any_user_id_gets_a_folder_below_the_root(tmp_path, user_id):
    made = create(tmp_path / "devices", history(user_id), Policy(0.5, ("1",)), SECRET)
    assert made.parent == tmp_path / "devices"
    assert made.resolve().is_relative_to(tmp_path / "devices")


def test_what_was_set_up_is_read_back(tmp_path):
    made = create(tmp_path, history("17"), Policy(0.5, ("1",)), SECRET)
    own = read(made)
    assert (own.history, own.policy, own.secret) == (history("17"), Policy(0.5, ("1",)), SECRET)


def test_ids_that_look_alike_get_different_folders():
    assert folder_name("a/b") != folder_name("a-b")


def test_many_ids_have_as_many_folders_on_a_file_system_that_ignores_case_too():
    ids = [f"user {number}" for number in range(40_000)] + ["Ana", "ana", "ANA"]
    assert len({folder_name(each).lower() for each in ids}) == len(ids)


def test_devices_come_in_the_order_of_their_user_ids(tmp_path):
    for user_id in ("9", "10", "1"):
        create(tmp_path, history(user_id), Policy(1.0), SECRET)
    found = [read(path).user_id for path in device_folders(tmp_path)]
    assert found == ["1", "10", "9"]


def test_a_broken_history_names_folder_and_remedy(tmp_path):
    made = create(tmp_path, history("17"), Policy(1.0), SECRET)
    (made / "history.json").write_text("{")
    with pytest.raises(DataError, match=r"history\.json line 1 .* JSON.*set the device up again"):
        read(made)


@pytest.mark.parametrize("name", ["history.json", "policy.json", "limits.json", "order.json"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_every_file_of_a_device_is_read_in_every_declared_encoding(tmp_path, name, encoding):
    made = create(tmp_path, history("17"), Policy(1.0), SECRET, limits=folder.Limits(1e9, 1e9))
    fixed(read(made))
    before, path = read(made), made / name
    path.write_bytes(path.read_text(encoding="utf-8").encode(encoding))
    assert read(made) == before
    path.write_bytes(b'{"caf\xe9": 1}')
    with pytest.raises(DataError, match=rf"{name}, line 1, byte 6: expected UTF-8, got 0xe9"):
        read(made)


@pytest.mark.parametrize("size", [0, 1, 16, 31, 33])
def test_a_secret_of_another_length_is_refused_at_set_up_and_on_the_device(tmp_path, size):
    with pytest.raises(DataError, match=f"expected 32 random bytes, got {size}"):
        create(tmp_path, history("17"), Policy(1.0), SECRET[:1] * size)
    made = create(tmp_path, history("17"), Policy(1.0), SECRET)
    (made / "secret.bin").write_bytes(SECRET[:1] * size)
    with pytest.raises(DataError, match=rf"secret\.bin: expected 32 random bytes, got {size}"):
        read(made)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_a_devices_folder_is_its_owners_alone_whatever_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        made = create(tmp_path, history("17"), Policy(1.0), SECRET, limits=folder.Limits(1e9))
        device = fixed(read(made))
        sent.charge(made, Policy(1.0).budget, "query.share", 1.0)
        sent.note_records(made, {"1": "a hash"})
        keep(made, "query.share", ValueError("words"))
        with atomic.new_folder(made / "adapters" / "direct_ft") as adapter:
            (adapter / "nested").mkdir()
            (adapter / "nested" / "weights").touch()
        atomic.write_text(made / "settings.json", "{}")
    finally:
        os.umask(before)
    assert device.order == ("1",)
    found = {path: stat.S_IMODE(path.stat().st_mode) for path in (made, *made.rglob("*"))}
    names = {path.name for path in found}
    assert names >= {"secret.bin", "order.json", "sent.jsonl", "errors.jsonl", "weights"}
    assert names >= {".sent.lock", ".order.lock", "shared.json", "COMPLETE.json"}
    wrong = {
        path: oct(mode)
        for path, mode in found.items()
        if mode != (0o700 if path.is_dir() else 0o600)
    }
    assert wrong == {}


def test_a_missing_secret_is_told(tmp_path):
    made = create(tmp_path, history("17"), Policy(1.0), SECRET)
    (made / "secret.bin").unlink()
    with pytest.raises(DataError, match=r"secret\.bin"):
        folder.read(made)


PLUGIN = """
from lamp.tasks import TASKS, Task, register
from dataclasses import replace

register(replace(TASKS["lamp_4"], name="own_headlines"), max_new_tokens=8)
"""


def test_a_device_loads_the_plugins_of_its_own_policy_from_its_own_folder(tmp_path, registries):
    own_task = TaskConfig(name="own_headlines", max_new_tokens=8)
    policy = Policy(0.5, task=own_task, plugins=("mine.py",))
    made = create(tmp_path, history("17"), policy, SECRET)
    with pytest.raises(ConfigError, match=r"mine.py: no such file"):
        read(made)
    (made / "mine.py").write_text(PLUGIN, encoding="utf-8")
    assert task(read(made).policy.task).name == "own_headlines"


def test_a_task_that_a_message_names_is_never_looked_up(tmp_path):
    policy = Policy(0.5, task=TaskConfig(name="lamp_4", max_new_tokens=8))
    device = read(create(tmp_path, history("17"), policy, SECRET))
    asked = settings_of(compose([]))
    other = replace(asked, task=TaskConfig(name="/etc/mine.py", max_new_tokens=8))
    with pytest.raises(ProtocolError, match=r"expected the task lamp_4, got /etc/mine.py"):
        own_settings(device, other)
