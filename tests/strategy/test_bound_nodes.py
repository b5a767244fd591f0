"""Whose device a node is: the operator's own table, read as every other one."""

from __future__ import annotations

import pytest

from conf.errors import DataError
from strategy.registry import read_bound


@pytest.fixture
def write(tmp_path):
    def write(*rows: str, encoding: str = "utf-8"):
        path = tmp_path / "nodes.csv"
        path.write_bytes("\n".join(rows).encode(encoding))
        return path

    return write


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_nodes_are_bound_to_their_users(write, encoding):
    path = write("node_id;User_ID", "18446744073709551615;ana", "7;港", encoding=encoding)
    assert read_bound(path) == {2**64 - 1: "ana", 7: "港"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (("7,ana", "7,ben"), "line 3: expected each node_id once"),
        (("7,ana", "8,ana"), "line 3: expected each user_id once"),
        (("7,ana", "07,ben"), "line 3: expected the number .* got '07'"),
        (("9" * 5000 + ",ana",), "line 2: expected the number"),
        (("-7,ana",), "line 2: expected the number .* got '-7'"),
        (("٣,ana",), "line 2: expected the number"),
    ],
)
def test_what_binds_nobody_is_refused_with_its_line(write, rows, message):
    with pytest.raises(DataError, match=message) as error:
        read_bound(write("node_id,user_id", *rows))
    assert len(str(error.value)) < 300
