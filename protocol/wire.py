"""The wire table: what each method may send, and the bytes of what was sent.

    method                        device -> server                  server -> device
    device, direct_ft, ...        numbers                           M_base once
    cdcda                         shared pairs, numbers             kept pairs, M_base once

Identity (user and query ids) and settings accompany every message. ``case studies`` (prediction and
gold texts) cross only when ``evaluation.ship_predictions`` is set. A test holds the serialised
messages of every method against this table.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from flwr.app import RecordDict
from flwr.common.serde import recorddict_to_proto

from protocol.codec import WireMessage, encode

ALWAYS = frozenset({"identity", "settings", "numbers"})


@dataclass(frozen=True, slots=True)
class Allowed:
    """What a method may send beyond :data:`ALWAYS`, per direction."""

    up: frozenset[str]
    down: frozenset[str]


_LOCAL = Allowed(up=frozenset(), down=frozenset({"M_base"}))
_AUGMENTED = Allowed(up=frozenset({"shared pairs"}), down=frozenset({"kept pairs", "M_base"}))

WIRE_TABLE: dict[str, Allowed] = {
    "device": _LOCAL,
    "direct_ft": _LOCAL,
    "direct_ft_matched": _LOCAL,
    "cdcda": _AUGMENTED,
}


def contents(message: WireMessage) -> frozenset[str]:
    """What ``message`` holds, empty fields left out."""
    return frozenset(
        each.metadata["holds"]
        for each in fields(message)
        if getattr(message, each.name) not in ((), "")
    )


def serialise(content: RecordDict) -> bytes:
    """The bytes that Flower's deployment engine would post for ``content``."""
    serialised: bytes = recorddict_to_proto(content).SerializeToString(deterministic=True)
    return serialised


def serialised_message(message: WireMessage) -> bytes:
    """The bytes of ``message`` on the wire."""
    return serialise(encode(message))
