"""What a crash must not undo is on the disk before its name, and its name before the next step."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from storage import atomic, jsonlines


@pytest.fixture
def steps(monkeypatch):
    """The order of flushes and renames: ("flush", path) and ("rename", new path)."""
    found: list[tuple[str, Path]] = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(descriptor):
        found.append(("flush", Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    def noted_replace(old, new):
        replace(old, new)
        found.append(("rename", Path(new)))

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    return found


def test_a_file_is_flushed_then_renamed_then_its_folder_is_flushed(tmp_path, steps):
    atomic.write_text(tmp_path / "file", "x")
    (what, written), renamed, last = steps
    assert (what, written.parent) == ("flush", tmp_path)
    assert written.name.startswith(".file.")
    assert (renamed, last) == (("rename", tmp_path / "file"), ("flush", tmp_path))


def test_a_file_of_a_library_is_flushed_as_well(tmp_path, steps):
    with atomic.new_file(tmp_path / "file") as temporary:
        temporary.write_text("x")
    assert steps[1:] == [("rename", tmp_path / "file"), ("flush", tmp_path)]
    assert steps[0][0] == "flush"


def test_every_file_of_a_folder_is_flushed_before_the_folder_has_its_name(tmp_path, steps):
    with atomic.new_folder(tmp_path / "adapter") as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "weights").write_bytes(b"w" * 1000)
        (folder / "config").touch()
    renamed = steps.index(("rename", tmp_path / "adapter"))
    before = {path.name for what, path in steps[:renamed] if what == "flush"}
    assert before >= {"weights", "config", "inner"}
    assert any(name.startswith(".COMPLETE.json.") for name in before)
    assert any(name.startswith(".adapter.") for name in before)
    assert steps[renamed + 1 :] == [("flush", tmp_path)]


def test_a_line_is_flushed_before_the_append_returns(tmp_path, steps):
    jsonlines.append(tmp_path / "log.jsonl", [{"a": 1}])
    assert steps[0] == ("flush", tmp_path / "log.jsonl")
    assert ("flush", tmp_path) in steps[1:]  # the file is new, so its name has to be there too
    del steps[:]
    jsonlines.append(tmp_path / "log.jsonl", [{"a": 2}])
    assert steps == [("flush", tmp_path / "log.jsonl")]


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_what_lies_in_a_private_folder_is_private_and_elsewhere_the_umask_counts(tmp_path, umask):
    tmp_path.chmod(0o755)
    before = os.umask(umask)
    try:
        private, public = tmp_path / "private", tmp_path / "public"
        atomic.make_folder(private, private=True)
        atomic.make_folder(public)
        for folder in (private, public):
            atomic.write_text(folder / "inner" / "file", "x")
            with atomic.new_file(folder / "inner" / "made") as temporary:
                temporary.write_text("x")
    finally:
        os.umask(before)

    def mode(path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode)

    assert {mode(private), mode(private / "inner")} == {0o700}
    assert {mode(private / "inner" / name) for name in ("file", "made")} == {0o600}
    assert mode(public) == 0o777 & ~umask
    assert mode(public / "inner" / "file") == 0o666 & ~umask
