"""A full or read-only disk ends in one clear line, and what was there stays whole."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conf.errors import RunError
from storage import atomic, jsonlines
from storage.locks import locked
from storage.writing import REMEDIES, writing


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file may grow beyond ``size`` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_the_old_file_and_says_how_to_go_on(tmp_path):
    path = tmp_path / "run" / "results.json"
    atomic.write_text(path, "old")
    told = pytest.raises(RunError, match=r"run/results.json: cannot be written .*raise the limit")
    with full_disk(1000), told:
        atomic.write_bytes(path, b"x" * 5000)
    assert path.read_text() == "old"
    assert [each.name for each in path.parent.iterdir()] == ["results.json"]


def test_a_full_disk_in_the_middle_of_a_line_costs_that_line_alone(tmp_path):
    path = tmp_path / "answers.jsonl"
    jsonlines.append(path, [{"n": 1}])
    with full_disk(100), pytest.raises(RunError, match="cannot be written"):
        jsonlines.append(path, [{"n": 2, "text": "x" * 500}])
    assert path.stat().st_size == 100
    assert list(jsonlines.read(path)) == [{"n": 1}]
    jsonlines.append(path, [{"n": 3}])
    assert list(jsonlines.read(path)) == [{"n": 1}, {"n": 3}]


def test_a_folder_on_a_full_disk_is_not_there_at_all(tmp_path):
    target = tmp_path / "adapter"
    told = pytest.raises(RunError, match="cannot be written")
    with full_disk(1000), told, atomic.new_folder(target) as folder:
        (folder / "weights").write_bytes(b"x" * 5000)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", sorted(REMEDIES))
def test_every_refusal_of_the_disk_has_its_remedy(number):
    with pytest.raises(RunError, match=os.strerror(number)), writing(Path("run/file")):
        raise OSError(number, os.strerror(number))


def test_what_is_no_refusal_of_the_disk_is_a_bug():
    with pytest.raises(OSError, match="Bad file"), writing(Path("run/file")):
        raise OSError(errno.EBADF, "Bad file descriptor")


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch, number):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", flock)
    for limit in (None, 0.1):
        with pytest.raises(RunError, match=r"/\.lock: cannot be locked .*NFS.*on another one"):
            locked(tmp_path / ".lock", limit).__enter__()


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_read_only_folder_is_told(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(RunError, match="make the folder writable"):
        atomic.write_text(tmp_path / "file", "x")


@pytest.mark.parametrize("how", ["truncated", "flipped", "gone", "more"])
def test_a_damaged_folder_is_not_whole(tmp_path, how):
    target = tmp_path / "base"
    with atomic.new_folder(target, marker={"fact": 1}) as folder:
        (folder / "weights").write_bytes(b"weights" * 100)
        (folder / "inner").mkdir()
        (folder / "inner" / "config").write_text("{}")
    assert atomic.is_whole(target)
    weights = target / "weights"
    content = weights.read_bytes()
    if how == "truncated":
        weights.write_bytes(content[:-1])
    elif how == "flipped":
        weights.write_bytes(content[:50] + bytes([content[50] ^ 1]) + content[51:])
    elif how == "gone":
        (target / "inner" / "config").unlink()
    else:
        (target / "inner" / "code.py").write_text("print('hello')")
    assert atomic.is_complete(target)
    assert not atomic.is_whole(target)
