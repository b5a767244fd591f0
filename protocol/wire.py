"""The wire table: what each method may send, and the bytes of what was sent.

A method that is registered brings its row (:func:`strategy.methods.register`); one without a row
may send numbers only. Identity (user and query ids) and settings accompany every message. ``case
studies`` (prediction and gold texts) cross only when ``evaluation.ship_predictions`` is set. A test
holds the serialised messages of every method against the table, docs/architecture.md shows it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from flwr.app import RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from conf.errors import ProtocolError
from protocol.codec import WireMessage, encode

ALWAYS = frozenset({"identity", "settings", "numbers"})


@dataclass(frozen=True, slots=True)
class Allowed:
    """What a method may send beyond :data:`ALWAYS`, per direction."""

    up: frozenset[str]
    down: frozenset[str]


def allowed(up: str = "", down: str = "") -> Allowed:
    """A row of the table, e.g. ``allowed(up="shared pairs", down="kept pairs, M_base")``.

    Args:
        up: What devices may send to the server, in the words of the messages' fields.
        down: What the server may send to devices.
    """
    filled = (frozenset(each.split(", ")) if each else frozenset[str]() for each in (up, down))
    return Allowed(*filled)


NUMBERS_ONLY = allowed(down="M_base")
WIRE_TABLE: dict[str, Allowed] = {}  # method -> row; strategy.methods.register fills it


def check_allowed(method: str, direction: Literal["up", "down"], message: WireMessage) -> None:
    """Hold a message of ``method`` against its row, before it is sent.

    Raises:
        ProtocolError: If it holds what the row does not allow.
    """
    row = WIRE_TABLE.get(method, NUMBERS_ONLY)
    excess = contents(message) - ALWAYS - (row.up if direction == "up" else row.down)
    if excess:
        raise ProtocolError(
            f"{method}: a {message.TYPE} would carry {', '.join(sorted(excess))} {direction}; its "
            "wire row does not allow that (strategy/methods.py)"
        )


def contents(message: WireMessage) -> frozenset[str]:
    """What ``message`` holds, empty fields left out."""
    return frozenset(
        each.metadata["holds"]
        for each in fields(message)
        if getattr(message, each.name) not in ((), "", {})
    )


def serialise(content: RecordDict) -> bytes:
    """The bytes that Flower's deployment engine would post for ``content``."""
    serialised: bytes = recorddict_to_proto(content).SerializeToString(deterministic=True)
    return serialised


def deserialise(content: bytes) -> RecordDict:
    """Read what :func:`serialise` wrote.

    Raises:
        ProtocolError: If it is no such thing.
    """
    try:
        return recorddict_from_proto(ProtoRecordDict.FromString(content))
    except DecodeError as error:
        raise ProtocolError("expected the bytes of a message's content, got others") from error


def serialised_message(message: WireMessage) -> bytes:
    """The bytes of ``message`` on the wire."""
    return serialise(encode(message))
