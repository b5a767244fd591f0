"""Files survive a crash: old content or new, torn lines recognised, folders complete or absent."""

from __future__ import annotations

import pytest

from conf.errors import RunError
from storage import atomic, jsonlines
from storage.hashing import hash_json


def test_a_failed_folder_leaves_nothing_behind(tmp_path):
    with pytest.raises(ValueError, match="stop"):
        _fail_in_folder(tmp_path / "made")
    assert list(tmp_path.iterdir()) == []


def _fail_in_folder(path):
    with atomic.new_folder(path) as folder:
        (folder / "half").write_text("x")
        raise ValueError("stop")


def test_a_finished_folder_is_complete_and_replaces_the_old_one(tmp_path):
    for content in ("old", "new"):
        with atomic.new_folder(tmp_path / "made", {"n": content}) as folder:
            (folder / "file").write_text(content)
    assert atomic.is_complete(tmp_path / "made")
    assert (tmp_path / "made" / "file").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_folder_without_marker_is_not_complete(tmp_path):
    (tmp_path / "made").mkdir()
    assert not atomic.is_complete(tmp_path / "made")


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    atomic.write_text(path, "old")
    monkeypatch.setattr("os.replace", _disk_full)
    with pytest.raises(OSError, match="full"):
        atomic.write_text(path, "new")
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def _disk_full(*_):
    raise OSError("disk full")


def test_a_torn_last_line_is_left_out_and_removed_by_the_next_append(tmp_path):
    path = tmp_path / "log.jsonl"
    jsonlines.append(path, [{"a": 1}])
    with path.open("ab") as file:
        file.write(b'{"a": 2, "b')
    assert list(jsonlines.read(path)) == [{"a": 1}]
    jsonlines.append(path, [{"a": 3}])
    assert list(jsonlines.read(path)) == [{"a": 1}, {"a": 3}]


def test_a_broken_line_in_the_middle_is_an_error_with_its_number(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"a": 1}\nnonsense\n{"a": 2}\n')
    with pytest.raises(RunError, match=r"log\.jsonl line 2"):
        list(jsonlines.read(path))


def test_key_order_does_not_change_a_hash():
    assert hash_json({"a": 1, "b": [2]}) == hash_json({"b": [2], "a": 1})
    assert hash_json({"a": 1}) != hash_json({"a": 1.5})
