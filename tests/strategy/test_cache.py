"""The cache returns what was put, notices damage, and forgets what nobody holds."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

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
    cache.hold("u1", ["shared", "own"])
    cache.hold("u2", ["shared"])
    assert cache.release("u1") == 1
    assert cache.get(["shared", "own"]) == {"shared": 1}
    assert cache.release("u2") == 1
    assert cache.get(["shared"]) == {}


def test_a_withdrawal_keeps_what_the_user_still_shares(cache):
    cache.put({"a": 1, "b": 2})
    cache.hold("u1", ["a", "b"])
    assert cache.release("u1", keep=["b"]) == 1
    assert cache.get(["a", "b"]) == {"b": 2}
