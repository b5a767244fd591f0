"""The header of a GGUF file, version 2 or 3: metadata and where each tensor lies.

https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The gguf package's reader makes an array
of every token and takes seconds; a check before a run needs neither tokens nor weights.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

from gguf import GGML_QUANT_SIZES, GGUF_DEFAULT_ALIGNMENT, GGUF_MAGIC, GGMLQuantizationType

from models.names import unusable

AGAIN = "download it again"
ORIGINAL = "take the original checkpoint: its folder or its name on the hub"
VERSIONS = (2, 3)
STRING, ARRAY = 8, 9
FORMATS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
MOST_NAMES = 1 << 20  # keys or tensors; more is no model


@dataclass(frozen=True, slots=True)
class Gguf:
    """What the header says.

    Attributes:
        path: The file.
        metadata: Its keys; of an array only the length.
        tensors: Values of each tensor, by its name.
    """

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, int]

    @property
    def architecture(self) -> str:
        """As llama.cpp names it, e.g. "qwen2"."""
        return str(self.metadata.get("general.architecture"))

    @property
    def parameters(self) -> int:
        """Values of all tensors."""
        return sum(self.tensors.values())


def read_header(path: Path) -> Gguf:
    """Read the header and check that the file holds all that it announces.

    Raises:
        ModelError: If it is no GGUF file, cut off, or has tensors of an unknown type.
    """
    try:
        with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
            return _read(path, content)
    except OSError as error:
        raise unusable(path.name, "a readable file", f"{error.strerror}") from error
    except ValueError as error:  # an empty file, or bytes that are no text
        raise unusable(path.name, "a GGUF file", str(error), AGAIN) from error
    except (struct.error, OverflowError, MemoryError) as error:  # lengths beyond the end
        raise _cut_off(path) from error


def _read(path: Path, content: mmap) -> Gguf:
    if content[:4] != struct.pack("<I", GGUF_MAGIC):
        raise unusable(path.name, "a GGUF file", f"one that begins with {content[:4]!r}", ORIGINAL)
    at = _Cursor(content, 4)
    version = at.value("I")
    if version not in VERSIONS:
        raise unusable(path.name, "GGUF version 2 or 3", f"version {version}", ORIGINAL)
    tensors, keys = at.value("Q"), at.value("Q")
    if max(tensors, keys) > MOST_NAMES:
        raise struct.error("counts beyond any model")
    metadata = dict(at.pair() for _ in range(keys))
    alignment = int(metadata.get("general.alignment", GGUF_DEFAULT_ALIGNMENT))
    table = [_tensor(path, at) for _ in range(tensors)]
    data = -(-at.place // alignment) * alignment
    if any(data + offset + size > len(content) for _, _, offset, size in table):
        raise _cut_off(path)
    return Gguf(path, metadata, {name: values for name, values, _, _ in table})


class _Cursor:
    """Reads values one after the other.

    Attributes:
        place: Where the next one begins.
    """

    def __init__(self, content: mmap, place: int) -> None:
        self._content = content
        self.place = place

    def value(self, kind: str) -> Any:
        (found,) = struct.unpack_from(f"<{kind}", self._content, self.place)
        self.place += struct.calcsize(f"<{kind}")
        return found

    def text(self) -> str:
        return self._bytes(self.value("Q")).decode("utf-8")

    def pair(self) -> tuple[str, Any]:
        return self.text(), self._typed(self.value("I"))

    def _typed(self, kind: int) -> Any:
        if kind == STRING:
            return self.text()
        if kind == ARRAY:
            return self._length()
        if kind not in FORMATS:
            raise ValueError(f"a value of the unknown type {kind}")
        return self.value(FORMATS[kind])

    def _length(self) -> int:
        """Pass over an array and return its length."""
        kind, length = self.value("I"), int(self.value("Q"))
        if kind in FORMATS:
            self._bytes(length * struct.calcsize(FORMATS[kind]))
            return length
        if kind != STRING:
            raise ValueError(f"an array of the unknown type {kind}")
        for _ in range(length):
            self._bytes(self.value("Q"))
        return length

    def _bytes(self, length: int) -> bytes:
        end = self.place + length
        if end > len(self._content):
            raise struct.error("beyond the end")
        found = self._content[self.place : end]
        self.place = end
        return found


def _tensor(path: Path, at: _Cursor) -> tuple[str, int, int, int]:
    """Name, values, offset in the data and bytes of one tensor."""
    name = at.text()
    values = 1
    for extent in _extents(at):
        values *= extent
    kind, offset = at.value("I"), at.value("Q")
    try:
        block, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
    except (ValueError, KeyError) as error:
        raise unusable(path.name, "known types of weights", f"type {kind}", ORIGINAL) from error
    return name, values, offset, values // block * size


def _extents(at: _Cursor) -> Iterator[int]:
    for _ in range(at.value("I")):
        yield at.value("Q")


def _cut_off(path: Path) -> Exception:
    size = f"{path.stat().st_size:,} bytes"
    return unusable(path.name, "a whole GGUF file", f"one that is cut off after {size}", AGAIN)
