"""A preset of one's own is a text file from outside: read, or refused in one line."""

from __future__ import annotations

import shutil

import pytest

from conf import compose as composing
from conf import groups
from conf.compose import compose
from conf.errors import ConfigError


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a preset into a copy of the tree: ``write("experiment", b"...")`` names it ``own``."""
    folder = tmp_path / "conf"
    shutil.copytree(groups.FOLDER, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    monkeypatch.setattr(groups, "FOLDER", folder)
    monkeypatch.setattr(composing, "FOLDER", folder)
    return lambda group, content: (folder / group / "own.yaml").write_bytes(content)


HEAD = b"# @package _global_\n# Mine.\n"


@pytest.mark.parametrize("ends", [b"\n", b"\r\n"])
def test_a_preset_in_utf_8_is_read(write, ends):
    write("experiment", (HEAD + "users: 3\nname: café-港\n".encode()).replace(b"\n", ends))
    config = compose(["experiment=own"])
    assert (config.users, config.name) == (3, "café-港")
    assert groups.headline("experiment", "own") == "Mine."


def test_a_preset_that_was_written_again_counts_at_once(write):
    for users in (3, 4):
        write("experiment", HEAD + f"users: {users}\n".encode())
        assert compose(["experiment=own"]).users == users


@pytest.mark.parametrize("group", ["experiment", "qlora"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"# a\n# caf\xe9\n", r"own\.yaml, line 2, byte 10: expected UTF-8 without .*got 0xe9"),
        (b"\xef\xbb\xbf" + HEAD, r"own\.yaml, line 1, byte 1: .*got 0xef; save the file so"),
        ("users: 3\n".encode("utf-16"), r"own\.yaml, line 1, byte 1: .*got 0xff"),
        (HEAD + b"users: [3\n", r"cannot be composed: while parsing.*own\.yaml\", line 3"),
        (HEAD + b"a: \x07\n", r"cannot be composed: unacceptable character #x0007"),
        (b"- a\n- b\n", "cannot be composed: "),
    ],
)
def test_another_file_is_refused_in_one_line(write, group, content, message):
    write(group, content)
    with pytest.raises(ConfigError, match=message) as error:
        compose([f"{group}=own"])
    assert "\n" not in str(error.value)
