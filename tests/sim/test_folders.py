"""Run folders: what a configuration that cannot be read says, whichever command asks."""

from __future__ import annotations

import json

import pytest

from conf.errors import RunError
from sim.commands import diagnose, leakage, resume
from sim.folders import RunFolder, find_run


def spoil(folder) -> None:
    """Give the configuration a key that this version does not have."""
    tree = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**tree, "gone_key": 1}))


@pytest.mark.parametrize("command", [diagnose, leakage, resume], ids=lambda each: each.__name__)
def test_a_run_of_another_version_is_named(make_run, command):
    folder = make_run(users=2)
    spoil(folder)
    with pytest.raises(RunError, match=r"a-run/config\.json: gone_key.* another version"):
        command.main([f"run={folder}"])


@pytest.mark.parametrize("command", [diagnose, leakage], ids=lambda each: each.__name__)
def test_a_run_whose_set_up_did_not_end_is_named(make_run, command):
    folder = make_run(users=2)
    (folder / "config.json").rename(folder / "requested.json")
    with pytest.raises(RunError, match=r"set-up of this run did not end.*sim resume"):
        command.main([f"run={folder}"])


def test_what_was_asked_for_stands_in_until_set_up_ends(make_run):
    folder = make_run(users=2)
    (folder / "config.json").rename(folder / "requested.json")
    assert RunFolder(folder).read_requested().users == 2


def test_an_unknown_run_tells_where_they_are_listed(tmp_path):
    with pytest.raises(RunError, match=r"no such run.*sim runs lists them"):
        find_run("nowhere", tmp_path)


def test_a_plugin_that_moved_is_asked_for(make_run):
    folder = make_run(users=2)
    tree = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**tree, "plugins": ["/nowhere/my.py"]}))
    with pytest.raises(RunError, match=r"/nowhere/my\.py: no such file.*correct plugins in"):
        RunFolder(folder).read_config()
