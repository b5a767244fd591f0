"""The keys of the configuration with their documentation, both read from the schema.

The ``Attributes:`` sections of the schema's docstrings are the only place where a key is described;
``--help``, the nearest-name messages and the tests read it from here.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
from collections.abc import Iterable, Iterator
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from conf.names import nearest
from conf.schema import Config

ENTRY = re.compile(r"^ {4}(?P<name>\w+): (?P<text>.+)$")
CONTINUATION = re.compile(r"^ {8}(?P<text>\S.*)$")


@dataclasses.dataclass(frozen=True, slots=True)
class Key:
    """One key of the configuration.

    Attributes:
        path: Dotted path, e.g. ``qlora.rank``.
        doc: One line of documentation; '' where the schema's class docstring says it all.
        choices: Accepted values where the key takes one of a few; else empty.
        is_section: Whether other keys stand below it.
    """

    path: str
    doc: str
    choices: tuple[str, ...]
    is_section: bool


@functools.cache
def keys() -> dict[str, Key]:
    """Return every key by its dotted path, in the schema's order."""
    return {key.path: key for key in _walk(Config, prefix="")}


def defaults(section: type[Any] = Config) -> dict[str, Any]:
    """Return the schema's defaults as a tree of plain values; required keys are left out."""
    hints = get_type_hints(section)
    tree: dict[str, Any] = {}
    for field in dataclasses.fields(section):
        if dataclasses.is_dataclass(hints[field.name]):
            tree[field.name] = defaults(hints[field.name])
        elif field.default is not dataclasses.MISSING:
            tree[field.name] = field.default
    return tree


def is_key(path: str) -> bool:
    """Whether ``path`` stands in the schema; list items count (``privacy.groups.0.low``)."""
    head = itertools.takewhile(lambda part: not part.isdigit(), path.split("."))
    return ".".join(head) in keys()


def suggest_key(path: str, also: Iterable[str] = ()) -> str:
    """Say which key was probably meant by an unknown one, and list the keys beside it.

    Args:
        path: The unknown key.
        also: Names beside the schema's keys that would have been right, e.g. of YAML groups.
    """
    close = _inside_match(path) or _leaf_match(path)
    if not close and path.rpartition(".")[0] not in keys():
        close = nearest(path, (*keys(), *also))
    section = _section_of(close or path)
    question = f"Did you mean '{close}'? " if close else ""
    place = f" in {section}" if section else ""
    return f"{question}Known{place}: {', '.join(_inside(section))}"


def _inside_match(path: str) -> str | None:
    """Find ``qlora.rank`` for ``qlora.rnak``: the section is right, its key is not."""
    section, dot, leaf = path.rpartition(".")
    close = nearest(leaf, _inside(section)) if section in keys() else None
    return f"{section}{dot}{close}" if close else None


def _leaf_match(path: str) -> str | None:
    """Find ``qlora.rank`` for ``rank`` and for ``lora.rank``: the last part is right."""
    leaf = path.rpartition(".")[2]
    return next((key for key in keys() if key.rpartition(".")[2] == leaf), None)


def _section_of(path: str) -> str:
    """Return the longest section of the schema that ``path`` lies in; '' is the top."""
    section = path.rpartition(".")[0]
    return section if not section or section in keys() else _section_of(section)


def _inside(section: str) -> list[str]:
    """List the last parts of the keys directly below ``section`` ('' is the top)."""
    return [
        leaf for above, _, leaf in (path.rpartition(".") for path in keys()) if above == section
    ]


def _walk(section: type[Any], prefix: str) -> Iterator[Key]:
    hints = get_type_hints(section, include_extras=True)
    docs = _attribute_docs(section.__doc__ or "")
    for field in dataclasses.fields(section):
        path = f"{prefix}{field.name}"
        below = _section_type(hints[field.name])
        doc = docs.get(field.name) or (_first_line(below) if below else "")
        yield Key(path, doc, tuple(_choices(hints[field.name])), below is not None)
        if below:
            yield from _walk(below, prefix=f"{path}.")


def _section_type(hint: Any) -> type[Any] | None:
    """Return the dataclass behind ``X`` or ``X | None``."""
    return next((part for part in _parts(hint) if dataclasses.is_dataclass(part)), None)  # type: ignore[return-value]


def _choices(hint: Any) -> Iterator[str]:
    for part in _parts(hint):
        if get_origin(part) is Literal:
            yield from map(str, get_args(part))


def _parts(hint: Any) -> Iterator[Any]:
    """Yield the alternatives of a type hint, unwrapping ``Annotated``, unions and tuples' items."""
    origin = get_origin(hint)
    if origin is Annotated:
        yield from _parts(get_args(hint)[0])
    elif origin in (Union, UnionType):
        for part in get_args(hint):
            yield from _parts(part)
    elif origin is tuple:
        yield from (part for part in _parts(get_args(hint)[0]) if get_origin(part) is Literal)
    else:
        yield hint


def _attribute_docs(docstring: str) -> dict[str, str]:
    """Parse the ``Attributes:`` section of a Google-style docstring into one line per attribute."""
    _, _, section = docstring.partition("Attributes:\n")
    docs: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        line = line.removeprefix("    ")
        if entry := ENTRY.match(line):
            name = entry["name"]
            docs[name] = entry["text"].strip()
        elif name and (more := CONTINUATION.match(line)):
            docs[name] += " " + more["text"].strip()
    return docs


def _first_line(section: type[Any]) -> str:
    return (section.__doc__ or "").strip().splitlines()[0]
