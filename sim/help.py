"""``python -m sim --help``: an overview, and one page per group, read from schema and YAML tree."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console

from conf.compose import choices, compose, to_json
from conf.errors import ConfigError
from conf.groups import groups, headline
from conf.keys import Key, keys
from conf.names import nearest
from sim.commands import COMMANDS
from sim.terminal import PlainConsole
from strategy.method import Method
from strategy.methods import METHODS

ALL = "all"
INDENT = 30
WIDEST = 120
ABOUT = """\
cdcda-sim simulates users with private on-device language models: CDCDA-PLM on Flower. A user shares
a part of a private history, the cloud writes similar records and filters them, the user's device
trains its own adapter on both and answers offline."""
USAGE = "python -m sim [command] [options] [group=name ...] [key=value ...]"
OPTIONS = (
    ("--dry-run", "Say what would run, with time, disk and generated tokens, and stop."),
    ("-m, --multirun", "One run per combination of comma lists: seed=0,1,2 task=lamp_2,lamp_4"),
    ("--debug", "Show the traceback of an error."),
    ("-h, --help [name ...]", "This page, or what groups, keys and methods are; 'all' for all."),
)
EXAMPLES = (
    ("python -m sim", "The demo: 20 users in the miniature world."),
    ("python -m sim experiment=smoke", "Everything once, as small as it gets."),
    ("python -m sim task=lamp_2 users=100 privacy=fixed privacy.ratio=0.5", ""),
    ("python -m sim experiment=ratio_sweep --dry-run", ""),
    ("python -m sim -m seed=0,1,2 methods=[device,cdcda]", "A comma sweeps, a list is one value."),
    ("python -m sim download task=lamp_4", ""),
    ("python -m sim experiment=paper data=lamp", "Qwen2.5 on a GPU, official files in ./lamp."),
)
STATUSES = (
    ("0", "All well."),
    ("1", "The run failed; `resume` goes on with it."),
    ("2", "Configuration, data or usage is refused."),
    ("3", "Some users failed, or went without augmentation; `resume` tries them again."),
    ("130", "Interrupted."),
)


def print_help(
    topics: Sequence[str] = (),
    console: Console | None = None,
    commands: Mapping[str, str] = COMMANDS,
) -> None:
    """Print the overview, or the pages of ``topics``.

    Args:
        topics: Names of groups, keys or methods, or "all".
        console: Where to print; standard output when None.
        commands: Names and what they are about.

    Raises:
        ConfigError: If a topic is none of these.
    """
    page = _Page(console or PlainConsole())
    if topics:
        _print_topics(page, topics)
    else:
        _print_overview(page, commands)


def _print_overview(page: _Page, commands: Mapping[str, str]) -> None:
    page.text(ABOUT)
    page.rows("Usage", [(USAGE, "")])
    page.rows("Commands", commands.items())
    page.rows("Options of run", OPTIONS)
    page.rows("Examples", EXAMPLES)
    page.rows("Groups (group=name; more with --help <group>)", _group_rows())
    page.rows("Keys (key=value; those of a group with --help <group>)", _key_rows("", _values()))
    page.rows("Methods (methods=[...])", map(_method_row, METHODS.values()))
    page.rows("Exit status", STATUSES)


def _method_row(method: Method) -> tuple[str, str]:
    return method.name, "; ".join(filter(None, (method.about, method.reference)))


def _print_topics(page: _Page, topics: Sequence[str]) -> None:
    known, single = groups(), {*keys(), *METHODS}
    for topic in topics:
        if topic not in (*known, *single, ALL):
            close = nearest(topic, [*known, ALL, *single])
            meant = f"Did you mean '{close}'? " if close else ""
            raise ConfigError(
                f"--help {topic}: no such group, key or method. {meant}Known groups: "
                f"{', '.join((ALL, *sorted(known)))}"
            )
    values = _values()
    for group in known if ALL in topics else topics:
        if group not in known:
            page.rows(f"On {group}", _about(group, values))
            continue
        rows = [(f"{group}={name}", headline(group, name)) for name in known[group]]
        page.rows(f"Presets of {group} (files conf/{group}/<name>.yaml)", rows)
        if group in keys():
            page.rows(f"Keys of {group}, as they are by default", _key_rows(group, values))


def _about(name: str, values: Any) -> list[tuple[str, str]]:
    """A key as it is by default, or those below it; or a method."""
    if name in METHODS:
        return [_method_row(METHODS[name])]
    key = keys()[name]
    if key.is_section:
        return _key_rows(name, values)
    return [(f"{name}={_shown(_value(values, name))}", _doc(key))]


def _group_rows() -> list[tuple[str, str]]:
    """Name the presets of every group, the default one first."""
    default = choices([])
    return [
        (group, ", ".join(sorted(names, key=lambda name: name != default[group])))
        for group, names in groups().items()
    ]


def _values() -> Any:
    return json.loads(to_json(compose([])))


def _key_rows(section: str, values: Any) -> list[tuple[str, str]]:
    """Show the keys below ``section`` with their ``values``; '' shows the top ones only."""
    prefix = f"{section}." if section else ""
    return [
        (f"{key.path}={_shown(_value(values, key.path))}", _doc(key))
        for key in keys().values()
        if not key.is_section and (key.path.startswith(prefix) if prefix else "." not in key.path)
    ]


def _doc(key: Key) -> str:
    doc = re.sub(r"\bNone\b", "null", key.doc.replace("``", ""))
    if all(choice in doc for choice in key.choices):
        return doc
    return f"{doc} One of: {', '.join(key.choices)}."


def _value(values: Any, path: str) -> Any:
    for part in path.split("."):
        if values is None:  # a section that is off
            return None
        values = values[part]
    return values


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(_shown(item) for item in value)}]"
    if isinstance(value, dict):  # an item of privacy.groups
        return str(value["name"])
    return value if isinstance(value, str) else json.dumps(value)


class _Page:
    """Titles, and rows of a word and what it means, as argparse lays them out."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._width = min(console.width, WIDEST)

    def text(self, text: str) -> None:
        self._line(textwrap.fill(" ".join(text.split()), self._width))

    def rows(self, title: str, rows: Iterable[tuple[str, str]]) -> None:
        self._line("")
        self._line(title, style="bold")
        for word, meaning in rows:
            self._row(word, textwrap.wrap(meaning, self._width - INDENT))

    def _row(self, word: str, meaning: Sequence[str]) -> None:
        left = f"  {word}"
        beside = meaning[:1] if len(left) <= INDENT - 2 else []
        gap = " " * (INDENT - len(left)) if beside else ""
        self._console.print(left, style="cyan", soft_wrap=True, end="")
        self._line("".join((gap, *beside)))
        for line in meaning[len(beside) :]:
            self._line(" " * INDENT + line)

    def _line(self, line: str, style: str = "") -> None:
        self._console.print(line, style=style, soft_wrap=True)
