"""What goes between a device's process of one message and its trainer.

    connect, then  -> Job        content of a message, and which code it is for
                   <- ACCEPTED   at once, however much the trainer has to do; or OTHER_CODE
                   <- Outcome    when the work is done

Contents are the bytes that Flower would post. Who asked goes away: so does the trainer, if it is at
that work, as a process of one message takes its work with it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from conf import errors
from conf.errors import CdcdaError, RunError
from storage.hashing import hash_files, hash_json

TREE = Path(__file__).resolve().parents[1]
PACKAGES = ("clients", "conf", "lamp", "models", "protocol", "storage")
ACCEPTED = b"accepted"
OTHER_CODE = b"other code"


@dataclass(frozen=True, slots=True)
class Job:
    """Work for the trainer.

    Attributes:
        code: Version of the code that the message was meant for.
        kind: Type of the message.
        content: Its serialised content.
    """

    code: str
    kind: str
    content: bytes = field(repr=False)

    def to_bytes(self) -> bytes:
        """Write it."""
        return _to_bytes(self)

    @staticmethod
    def from_bytes(written: bytes) -> Job:
        """Read what :meth:`to_bytes` wrote."""
        head, content = _from_bytes(written)
        return Job(**head, content=content)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a job.

    Attributes:
        state: "done", "refused" with an error of our own, "failed" with any other.
        error: Class of the error.
        text: What an error of our own says; of others nothing is told, it could be users' text.
        content: The reply's serialised content.
    """

    state: Literal["done", "refused", "failed"]
    error: str = ""
    text: str = ""
    content: bytes = field(default=b"", repr=False)

    def to_bytes(self) -> bytes:
        """Write it."""
        return _to_bytes(self)

    @staticmethod
    def from_bytes(written: bytes) -> Outcome:
        """Read what :meth:`to_bytes` wrote."""
        head, content = _from_bytes(written)
        return Outcome(**head, content=content)

    def refusal(self) -> CdcdaError:
        """The error of our own, of the class that it had."""
        kind = getattr(errors, self.error, RunError)
        error: CdcdaError = kind(self.text)
        return error


@lru_cache(maxsize=1)
def code_version() -> str:
    """Hash of all code that a device runs; a trainer of other code must not do the work."""
    return hash_json(
        {
            str(path.relative_to(TREE)): hash_files([path])
            for package in PACKAGES
            for path in sorted((TREE / package).rglob("*.py"))
        }
    )


def _to_bytes(record: Job | Outcome) -> bytes:
    head = asdict(record)
    content: bytes = head.pop("content")
    return json.dumps(head).encode("ascii") + b"\n" + content


def _from_bytes(written: bytes) -> tuple[dict[str, Any], bytes]:
    head, _, content = written.partition(b"\n")
    return json.loads(head), content
