"""Any text from outside is read, refused in one line, or shown; nothing else is raised."""

from __future__ import annotations

import csv
import io
import json
from functools import partial
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.table import Table as RichTable

from clients import policy
from conf.errors import ConfigError, DataError
from conf.schema import AugmenterConfig
from lamp import oppu
from lamp.dates import date_key
from lamp.dialogue.dialogues import read_file
from lamp.dialogue.lexicons import read_lexicons
from lamp.files import read_outputs, read_questions
from lamp.labels import normalise_label
from lamp.tasks import TASKS
from models.miniature.nli import read_nli
from sim.report.tables import make_table, to_csv, to_latex, to_markdown, to_rich
from sim.terminal import PlainConsole, words_table
from storage.text_files import decode, parse_json, read_json, read_table, unique_rows
from strategy import candidates
from strategy.prompting import make_prompt

pytestmark = pytest.mark.slow
READER_EXAMPLES, SHOWN_EXAMPLES = 2000, 50
NASTY = (
    "[red]", "[/red]", "[deleted]", "$5_$", "$x_1$", "a|b", "`rm`", "<script>", "&amp;", "**b**",
    "\x1b[31m", "\x00", "\u202e", "\ufeff", "\r\n", "\u2028", "_a_", "![x](y)", "%s{}", "\\",
    "港湾😀", "2011-05-09", "4 stars", "Comedy", "entailment", "",
)  # fmt: skip
TEXT = st.text(st.characters(), max_size=30) | st.sampled_from(NASTY)


def any_text(random: Random) -> str:
    """A text of every script, lone surrogates and control characters included."""
    characters = (chr(random.choice(PLANES)(random)) for _ in range(random.randrange(6)))
    return "".join(characters) + random.choice(NASTY)


PLANES = (
    lambda random: random.randrange(0x80),
    lambda random: random.randrange(0x3000),
    lambda random: random.randrange(0x110000),
    lambda random: random.randrange(0xD800, 0xE000),
)


def any_json(random: Random, depth: int = 2) -> object:
    kind = random.randrange(10 if depth else 6)
    if kind < 3:
        return any_text(random)
    if kind < 6:
        return random.choice((None, True, 7, -2.5, float("nan"), float("inf"), 10**400))
    if kind < 8:
        return [any_json(random, depth - 1) for _ in range(random.randrange(3))]
    return {any_text(random): any_json(random, depth - 1) for _ in range(random.randrange(3))}


def any_record(random: Random, *names: str, **inner) -> object:
    """An object with some of ``names``, mostly texts; sometimes anything."""
    if not random.randrange(10):
        return any_json(random)
    record = {name: make(random) for name, make in inner.items() if random.randrange(8)}
    for name in names:
        if random.randrange(8):
            record[name] = any_text(random) if random.randrange(4) else any_json(random)
    return record


def some(make):
    return lambda random: [make(random) for _ in range(random.randrange(4))]


def any_item(random: Random) -> object:
    return any_record(random, "id", "text", "title", "date")


def any_question(random: Random) -> object:
    return any_record(random, "id", "input", "user_id", profile=some(any_item))


def any_outputs(random: Random) -> object:
    return any_record(random, "task", golds=some(lambda inner: any_record(inner, "id", "output")))


def any_lexicons(random: Random) -> object:
    return {any_text(random): some(any_text)(random) for _ in range(random.randrange(3))}


def dumped(make):
    return lambda random: json.dumps(make(random)).encode()


def any_rows(random: Random) -> bytes:
    buffer = io.StringIO()
    rows = [[any_text(random) for _ in range(random.randrange(1, 4))] for _ in range(3)]
    writer = csv.writer(buffer, delimiter=random.choice(",;\t"))
    writer.writerows([["user_id", "ratio"], *rows])
    return buffer.getvalue().encode(random.choice(("utf-8", "utf-16", "utf-8-sig")), "replace")


def read_policies(path):
    return list(unique_rows(read_table(path, ("user_id", "ratio")), "user_id", "x"))


def any_prompt(random: Random) -> bytes:
    text = "".join(random.choice(("{x}", "{y}", "{z}", any_text(random))) for _ in range(3))
    return text.encode(random.choice(("utf-8", "utf-16", "utf-8-sig", "latin-1")), "replace")


def any_candidate(random: Random) -> object:
    row = {"record": any_text, "index": lambda inner: inner.randrange(-1, 3)}
    scores = partial(any_record, entails=lambda _: 0.5, entailed=lambda _: 0.5, rouge_l=any_json)
    return any_record(random, "input", "response", "unreadable", "writer", scores=scores, **row)


def any_user(random: Random) -> object:
    return any_record(random, "user_id", profile=some(any_item), query=some(any_query))


def any_query(random: Random) -> object:
    return any_record(random, "id", "input", "gold")


def any_policy(random: Random) -> object:
    chosen = {"numbers": lambda _: "coarse", "withdrawn": some(any_text), "budget": any_json}
    return any_record(random, "select", "plugins", ratio=lambda inner: inner.random(), **chosen)


def read_template(path):
    try:
        return make_prompt(AugmenterConfig(prompt=str(path)), TASKS["lamp_4"])
    except ConfigError as error:
        raise DataError(str(error)) from error


FILES = {
    "questions": (read_questions, dumped(some(any_question))),
    "outputs": (read_outputs, dumped(any_outputs)),
    "lexicons": (read_lexicons, dumped(any_lexicons)),
    "nli": (read_nli, dumped(lambda random: any_record(random, "premise", "hypothesis", "label"))),
    "policies": (read_policies, any_rows),
    "dialogues.jsonl": (
        read_file,
        dumped(lambda random: any_record(random, "question", "answer", "domain")),
    ),
    "dialogues.csv": (read_file, any_rows),
    "prompt": (read_template, any_prompt),
    "candidates": (candidates.read, dumped(any_candidate)),
    "users of OPPU": (lambda path: oppu.read_users(path, TASKS["lamp_4"]), dumped(some(any_user))),
    "policy of a device": (
        lambda path: policy.from_json(read_json(path), "x"),
        dumped(any_policy),
    ),
    "words": (lambda path: parse_json(decode(path.read_bytes(), "x"), "x"), dumped(any_json)),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_read_or_refused_in_one_line(name, tmp_path):
    read, make = FILES[name]
    path, random = tmp_path / name, Random(name)
    for _ in range(READER_EXAMPLES):
        content = bytearray(make(random))
        if not random.randrange(4):  # a broken byte, or a file cut off
            content[random.randrange(len(content))] = random.randrange(256)
            del content[random.randrange(len(content)) :]
        path.write_bytes(content)
        refused_in_one_line(partial(read, path))


def refused_in_one_line(read):
    try:
        read()
    except DataError as error:
        assert "\n" not in str(error)  # noqa: PT017 - either outcome is right
        str(error).encode()


def test_labels_and_dates_are_read_or_none():
    random = Random(0)
    for _ in range(READER_EXAMPLES):
        text = any_text(random)
        assert normalise_label(TASKS["lamp_2"], text) in (None, *TASKS["lamp_2"].labels)
        assert normalise_label(TASKS["lamp_3"], text) in (None, *TASKS["lamp_3"].labels)
        assert date_key(text) is None or len(date_key(text)) <= 7


def console(encoding: str, **options) -> tuple[PlainConsole, io.BytesIO]:
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding=encoding, errors="replace", write_through=True)
    return PlainConsole(file=stream, width=80, **options), written


@settings(max_examples=SHOWN_EXAMPLES)
@given(
    texts=st.lists(TEXT, min_size=3, max_size=3),
    encoding=st.sampled_from(["utf-8", "ascii", "latin-1"]),
    terminal=st.booleans(),
)
def test_every_table_shows_every_text(texts, encoding, terminal):
    table = make_table(("Method", "Value"), [[texts[0], texts[1]], ["direct_ft", texts[2]]])
    for write in (to_markdown, to_latex, to_csv):
        assert "direct" in write(table)
    assert len(to_markdown(table).splitlines()) == 4
    shown, written = console(encoding, force_terminal=terminal)
    shown.print(to_rich(table, stacked=True))
    shown.print(texts[0], f"user {texts[1]}")
    words = words_table(texts[2], (texts[0],), (texts[1],))
    words.add_row(*texts[1:])
    shown.print(words)
    assert b"direct_ft" in written.getvalue()


@pytest.mark.parametrize("text", ["[red]", "[/red]", "[deleted]", ":smile:", "$x_1$", "a`b"])
def test_markup_is_shown_as_it_is(text):
    shown, written = console("utf-8")
    shown.print(f"user {text}")
    table = RichTable(text)
    table.add_row(text)
    shown.print(table)
    assert written.getvalue().decode().count(text) == 3


def test_escape_sequences_and_turned_text_do_not_reach_the_terminal():
    shown, written = console("utf-8")
    shown.print("a\x1b[31mb\u202ec\x9b0m")
    assert written.getvalue().decode() == "a\ufffd[31mb\ufffdc\ufffd0m\n"


@pytest.mark.parametrize(
    ("text", "markdown"),
    [
        ("a|b", r"a\|b"),
        ("`a` <b> *c* ~d~", r"\`a\` &lt;b> \*c\* \~d\~"),
        ("$x_1$ direct_ft _a_", r"\$x_1\$ direct_ft \_a\_"),
        ("[x](y) ![z](w) [0.1, 0.2]", r"[x]\(y) \![z]\(w) [0.1, 0.2]"),
        ("&lt; R&D", "&amp;lt; R&D"),
        ("a\x1b\nb", r"a\\x1b b"),
    ],
)
def test_markdown_shows_a_text_as_it_is(text, markdown):
    table = make_table(("h",), [[text]])
    assert to_markdown(table).splitlines()[2] == f"| {markdown} |"
