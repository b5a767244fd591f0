"""The terminal as its users set it: colours, dumb terminals, pipes."""

from __future__ import annotations

import io
import re

import pytest

from sim.terminal import PlainConsole, words_table

ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


def shown(monkeypatch, terminal: bool = True, **surroundings: str) -> str:
    for name in ("NO_COLOR", "FORCE_COLOR", "TERM", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm-256color", **surroundings}.items():
        monkeypatch.setenv(name, value)
    console = PlainConsole(file=io.StringIO(), width=80, force_terminal=terminal)
    table = words_table("Ledger", ["message"], ["bytes"])
    table.add_row("evaluate.answer [/red] $5_$ \x07\x1b[31m", "1,000")
    console.print(table)
    console.print("text", style="red")
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_a_terminal_has_colours(monkeypatch):
    assert "\x1b[31m" in shown(monkeypatch)


def test_no_color_leaves_the_colours_out(monkeypatch):
    assert not re.search(r"\x1b\[(\d+;)*3\d", shown(monkeypatch, NO_COLOR="1"))


@pytest.mark.parametrize("surroundings", [{"TERM": "dumb"}, {"TERM": "unknown"}])
def test_a_dumb_terminal_gets_no_escape_codes(monkeypatch, surroundings):
    assert not ESCAPE.search(shown(monkeypatch, **surroundings))


def test_a_pipe_gets_no_escape_codes(monkeypatch):
    assert "\x1b" not in shown(monkeypatch, terminal=False)


def test_what_comes_from_outside_is_shown_as_it_is(monkeypatch):
    text = shown(monkeypatch, terminal=False)
    assert "evaluate.answer [/red] $5_$" in text
    assert not re.search(r"[\x07\x1b]", text)
