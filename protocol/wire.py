"""The wire table: what each method may send, and the bytes of what was sent.

    method                        device -> server                  server -> device
    device, direct_ft, ...        numbers                           M_base once
    dac24, ...                    numbers                           M_base once
    device_zero_shot              numbers                           the device model once
    cdcda, ...                    shared pairs, numbers             kept pairs, M_base once
    rkd_ft                        shared pairs, numbers             teacher logits, M_base once
    fedavg                        LoRA weights, numbers             averaged weights, M_base once
    cloud, ..., unified           nothing crosses the wire: these oracles hold all data in the cloud

Identity (user and query ids) and settings accompany every message. ``case studies`` (prediction and
gold texts) cross only when ``evaluation.ship_predictions`` is set. A test holds the serialised
messages of every method against this table.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

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


def _allowed(up: str = "", down: str = "") -> Allowed:
    filled = (frozenset(each.split(", ")) if each else frozenset[str]() for each in (up, down))
    return Allowed(*filled)


_LOCAL = _allowed(down="M_base")
_AUGMENTED = _allowed(up="shared pairs", down="kept pairs, M_base")
_ORACLE = _allowed()

WIRE_TABLE: dict[str, Allowed] = {
    "cloud_zero_shot": _ORACLE,
    "cloud": _ORACLE,
    "cloud_rag": _ORACLE,
    "device_zero_shot": _allowed(down="device model"),
    "device": _LOCAL,
    "device_rag": _LOCAL,
    "direct_ft": _LOCAL,
    "direct_ft_rag": _LOCAL,
    "direct_ft_matched": _LOCAL,
    "copies_ft": _LOCAL,
    "eda_ft": _LOCAL,
    "rkd_ft": _allowed(up="shared pairs", down="teacher logits, M_base"),
    "cdcda": _AUGMENTED,
    "cdcda_rag": _AUGMENTED,
    "cdcda_random": _AUGMENTED,
    "cdcda_unfiltered": _AUGMENTED,
    "dac24": _LOCAL,
    "dac24_random": _LOCAL,
    "dac24_fifo": _LOCAL,
    "dac24_kcenter": _LOCAL,
    "dac24_eoe": _LOCAL,
    "dac24_dss": _LOCAL,
    "dac24_idd": _LOCAL,
    "dac24_plain": _LOCAL,
    "dac24_random_plain": _LOCAL,
    "direct_ft_dp": _LOCAL,
    "cdcda_dp": _AUGMENTED,
    "fedavg": _allowed(up="LoRA weights", down="averaged weights, M_base"),
    "unified": _ORACLE,
}


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
