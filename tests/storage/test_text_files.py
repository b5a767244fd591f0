from __future__ import annotations

import json

import pytest

from conf.errors import DataError
from storage.text_files import (
    display_name,
    printable,
    read_json,
    read_json_lines,
    read_table,
    read_text,
    unique_rows,
)


@pytest.fixture
def write(tmp_path):
    def write(content, encoding="utf-8"):
        path = tmp_path / "a.txt"
        path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
        return path

    return write


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_text_is_read_in_every_declared_encoding(write, encoding):
    assert read_text(write("café\n港", encoding)) == "café\n港"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("one\ncaf\xe9\n".encode("latin-1"), r"a\.txt, line 2, byte 8: expected UTF-8, got 0xe9"),
        (b"\xef\xbb\xbfone\ncaf\xe9\n", r"a\.txt, line 2, byte 11: expected UTF-8, got 0xe9"),
        ("\u0a0a\nb".encode("utf-16") + b"\0\xd8", r"line 2, byte 9: expected UTF-16, got 0x00"),
        ("ab".encode("utf-16-le"), r"line 1, byte 2: .*zero byte, as UTF-16 without a byte order"),
        (b"\xff\xfea\x00\x00", r"expected UTF-16, got 0x00 \(truncated data\)"),
    ],
)
def test_other_bytes_are_refused_with_line_and_byte(write, content, message):
    with pytest.raises(DataError, match=message):
        read_text(write(content))


def test_what_is_no_file_is_named(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "none", tmp_path / "file" / "x"):
        with pytest.raises(DataError, match="expected a file, there is none; look elsewhere"):
            read_text(path, "look elsewhere")
    with pytest.raises(DataError, match="got a folder"):
        read_text(tmp_path)


def test_a_name_below_a_parts_folder_tells_the_task(tmp_path):
    assert display_name(tmp_path / "LaMP_4" / "x.json") == "LaMP_4/x.json"
    assert display_name(tmp_path / "LaMP_2" / "new" / "dev" / "x.json") == "LaMP_2/new/dev/x.json"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a":\n 1,}', "line 2 column .: expected JSON"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "expected each key of an object once, got 'c' twice"),
        ("9" * 5000, "thousands of digits"),
        ('{"a":' * 100_000, "lists in lists too deep"),
    ],
)
def test_broken_json_is_named(write, content, message):
    with pytest.raises(DataError, match=message):
        read_json(write(content))


def test_half_a_character_becomes_u_fffd(write):
    halves = r'{"a\ud83d": ["\udE00 b", "\ud83d\ude00", {"c": "\\ud83d"}]}'
    whole = {"a\ufffd": ["\ufffd b", "😀", {"c": r"\ud83d"}]}
    assert read_json(write(halves)) == whole
    assert read_json_lines(write(halves)) == [(1, whole)]


def test_nan_is_null(write):
    assert read_json(write("[NaN, 1]")) == [None, 1]


def test_json_lines_keep_their_numbers_and_may_hold_other_line_ends(write):
    path = write('\ufeff{"a": "x\u2028y"}\r\n\n[1]')
    assert read_json_lines(path) == [(1, {"a": "x\u2028y"}), (3, [1])]
    with pytest.raises(DataError, match="line 2 column 1"):
        read_json_lines(write("1\n}"))


@pytest.mark.parametrize(
    "content",
    [
        "user_id,ratio\nann,0.5\ncai,1\n",
        "user_id;ratio\r\nann;0.5\r\ncai;1",
        "user_id\tratio\nann\t0.5\ncai\t1\n",
        '\ufeffUser_ID, Ratio\n"ann", 0.5\n\n , \ncai,1',
        "group,Ratio,USER_ID\na,0.5,ann\n,1,cai\n",
    ],
)
def test_tables_of_every_separator_and_case_are_read(write, content):
    rows = [row for _, row in read_table(write(content), ("user_id", "ratio")).rows]
    assert [(row["user_id"], row["ratio"]) for row in rows] == [("ann", "0.5"), ("cai", "1")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "expected the columns user_id, ratio, got an empty file"),
        ("user_id;share\na;1", "got 'user_id;share', separated by a semicolon; 'ratio' is missing"),
        ("user_id,ratio\nann,0,5", "line 2: expected 2 columns as the header has, got 3"),
        ('user_id,ratio\n"ann', "line 2: expected CSV, got a broken row"),
    ],
)
def test_a_table_of_another_form_is_refused(write, content, message):
    with pytest.raises(DataError, match=message):
        read_table(write(content), ("user_id", "ratio"))


def test_a_short_row_is_filled_up(write):
    assert dict(read_table(write("a,b\n1\n")).rows[0][1]) == {"a": "1", "b": ""}


def test_a_value_that_stands_twice_is_refused_with_both_lines(write):
    table = read_table(write("user_id\nann\n\nann"))
    with pytest.raises(DataError, match=r"x, line 4: expected each user_id once, 'ann' .* line 2"):
        list(unique_rows(table, "user_id", "x"))


def test_control_characters_are_escaped():
    assert printable("a\nb\x1b[31m\u202e港") == r"a\nb\x1b[31m\u202e港"
    assert json.loads(json.dumps(printable("é😀"))) == "é😀"
