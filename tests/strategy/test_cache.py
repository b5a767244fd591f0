"""The cache returns what was put, notices damage, and forgets what nobody holds."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from conf.errors import RunError
from strategy.cache import Cache


@pytest.fixture
def cache(tmp_path) -> Cache:
    return Cache(tmp_path / "cache.sqlite")


def test_what_was_put_is_found_and_nothing_else(cache):
    cache.put({"a": {"text": "x"}, "b": [1.5]})
    assert cache.get(["a", "b", "c"]) == {"a": {"text": "x"}, "b": [1.5]}


def test_more_keys_than_one_statement_holds(cache):
    cache.put({str(number): number for number in range(2500)})
    assert len(cache.get(str(number) for number in range(2500))) == 2500


def test_a_changed_entry_counts_as_missing(cache, tmp_path):
    cache.put({"a": "good", "b": "good"})
    with closing(sqlite3.connect(tmp_path / "cache.sqlite")) as connection, connection:
        connection.execute("UPDATE entries SET value = '\"bad\"' WHERE key = 'a'")
    assert cache.get(["a", "b"]) == {"b": "good"}


def test_an_entry_lives_as_long_as_one_user_holds_it(cache):
    cache.put({"shared": 1, "own": 2})
    cache.hold("u1", {"r1": ["shared"], "r2": ["own"]})
    cache.hold("u2", {"r1": ["shared"]})
    assert cache.release("u1", ["r1", "r2"]) == 1
    assert cache.get(["shared", "own"]) == {"shared": 1}
    assert cache.release("u2", ["r1"]) == 1
    assert cache.get(["shared"]) == {}


def test_a_withdrawal_keeps_what_came_from_other_records(cache):
    cache.put({"a": 1, "b": 2})
    cache.hold("u1", {"r1": ["a"], "r2": ["b"]})
    assert cache.release("u1", ["r1"]) == 1
    assert cache.get(["a", "b"]) == {"b": 2}
    assert cache.release("u1", ["r1"]) == 0


def test_the_values_of_records_are_found(cache):
    cache.put({"a": 1, "b": 2, "c": 3})
    cache.hold("u1", {"r1": ["a", "b", "not written yet"], "r2": ["c"]})
    assert cache.of_records(["r1"]) == [1, 2]


def test_pruning_deletes_what_nobody_holds_and_what_is_damaged(cache, tmp_path):
    cache.put({"held": "x", "nobody's": "y", "damaged": "z"})
    cache.hold("u1", {"r1": ["held", "damaged", "not written yet"]})
    with closing(sqlite3.connect(tmp_path / "cache.sqlite")) as connection, connection:
        connection.execute("UPDATE entries SET value = '\"bad\"' WHERE key = 'damaged'")
    pruned = cache.prune()
    assert (pruned.unheld, pruned.damaged, pruned.left) == (1, 1, 1)
    cache.put({"not written yet": 1})
    assert cache.prune().unheld == 0
    assert cache.get(["held", "not written yet"]) == {"held": "x", "not written yet": 1}


def test_a_cache_of_the_first_version_is_read_and_its_holds_go_with_any_withdrawal(tmp_path):
    path = tmp_path / "old.sqlite"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(
            "CREATE TABLE entries (key TEXT PRIMARY KEY, value TEXT NOT NULL, check_sum TEXT);"
            "CREATE TABLE holders (key TEXT NOT NULL, user TEXT NOT NULL, PRIMARY KEY (key, user));"
            "INSERT INTO holders VALUES ('a', 'u1');"
        )
    cache = Cache(path)
    cache.put({"a": 1})
    assert cache.get(["a"]) == {"a": 1}
    assert cache.release("u1", ["anything"]) == 1


def damaged(path, how):
    content = bytearray(path.read_bytes())
    if how == "truncated":
        return bytes(content[: len(content) // 2])
    if how == "no database":
        return b"something else"
    for place in range(100, len(content), 997):
        content[place] ^= 0xFF
    return bytes(content)


@pytest.mark.parametrize("how", ["truncated", "no database", "flipped"])
def test_a_damaged_cache_gives_nothing_wrong_and_takes_new_entries(tmp_path, how):
    path = tmp_path / "cache.sqlite"
    values = {f"k{number}": "some text " * 40 + str(number) for number in range(200)}
    Cache(path).put(values)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA journal_mode=DELETE")
    path.write_bytes(damaged(path, how))
    cache = Cache(path)
    found = cache.get(values)
    assert found.items() <= values.items()
    assert len(found) < len(values)
    cache.put(values)
    assert Cache(path).get(values) == values


def test_a_flipped_byte_in_one_value_costs_that_value_alone(tmp_path):
    path = tmp_path / "cache.sqlite"
    Cache(path).put({"a": "x" * 50, "b": "y" * 50})
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA journal_mode=DELETE")
    path.write_bytes(path.read_bytes().replace(b"x" * 50, b"x" * 49 + b"z"))
    assert Cache(path).get(["a", "b"]) == {"b": "y" * 50}


def test_a_cache_on_a_full_disk_says_what_to_do(tmp_path):
    import resource

    cache = Cache(tmp_path / "cache.sqlite")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(RunError, match=r"cannot be used .*make room"):
            cache.put({"a": "x" * 500_000})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert cache.get(["a"]) == {}
    cache.put({"a": "x" * 500_000})
    assert len(cache.get(["a"])["a"]) == 500_000
