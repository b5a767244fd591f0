"""The ledger: one line for everything that crossed the wire, append-only and flushed.

What the oracles read crosses no wire; it stands there too, under its own direction.

A message that was sent again after a failure or a restart is marked as a re-delivery, so totals can
be taken with and without it. Texts are never written, only their hash and bytes. Every line carries
the hash of the one before (:mod:`storage.chain`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flwr.app import RecordDict

from protocol.codec import TEXTS
from protocol.wire import serialise
from storage import chain, jsonlines
from storage.hashing import hash_bytes

UP = "device -> server"
DOWN = "server -> device"
ENDPOINT = "server -> endpoint"  # a cloud model that somebody else runs
ORACLE = "all data in the cloud"  # no message: the simulation hands the histories over
HISTORY = "history"
M_BASE = "M_base"
DEVICE_MODEL = "device model"
AUGMENT = "augment"
WITHDRAWAL = "withdrawal"  # a tombstone: what these records gave rise to was deleted
_ONE_TIME = (M_BASE, DEVICE_MODEL)


@dataclass(frozen=True, slots=True)
class Entry:
    """One message, or one-time delivery, of one user.

    Attributes:
        user: User id; the node id as text while the node has not said whose it is.
        direction: :data:`UP`, :data:`DOWN`, :data:`ENDPOINT` or :data:`ORACLE`.
        kind: Message type, e.g. "query.share".
        arm: Arm, or "" where a message serves all arms.
        records: Pairs in the message.
        fields: Names of the fields that were not empty.
        bytes: Serialised bytes.
        hash: Content hash of those bytes.
        request: Content hash of the message that this one answers; "" where it answers none.
        redelivery: Whether it crossed before: the same request, or an answer to the same one.
    """

    user: str
    direction: str
    kind: str
    arm: str
    records: int
    fields: tuple[str, ...]
    bytes: int
    hash: str
    request: str
    redelivery: bool


class Ledger:
    """Writes entries to one file and remembers what it holds."""

    def __init__(self, path: Path) -> None:
        """Open the ledger at ``path``; entries of an earlier process are kept and known."""
        self._path = path
        self.withdrawn: dict[str, str] = {}  # user -> hash of what was withdrawn last
        self._seen: set[tuple[str, ...]] = set()
        self._held: list[dict[str, Any]] | None = None
        self._last = ""
        for line in jsonlines.read(path):
            self._last = str(line.get(chain.LINE, ""))
            head = (line["user"], line["direction"], line["kind"], line["arm"])
            self._seen.add((*head, line.get("request") or line["hash"]))
            if line["kind"] == WITHDRAWAL:
                self.withdrawn[line["user"]] = line["hash"]

    @contextmanager
    def together(self) -> Iterator[None]:
        """Write the entries of the block at its end: one flush to the disk, not one per message."""
        held = self._held = []
        try:
            yield
        finally:
            self._held = None
            self._write(held)

    def message(
        self, user: str, direction: str, kind: str, content: RecordDict, request: str = ""
    ) -> str:
        """Record one Flower message body; ``request`` is the hash of the message it answers.

        Returns:
            The content hash of the body.
        """
        serialised = serialise(content)
        digest = hash_bytes(serialised)
        self._append(
            user,
            direction,
            kind,
            arm=_arm(content),
            records=_num_pairs(content),
            fields=_filled_fields(content),
            size=len(serialised),
            digest=digest,
            request=request,
        )
        return digest

    def base_model(self, users: Iterable[str], base_id: str, size: int, kind: str = M_BASE) -> None:
        """Record the one-time delivery of M_base, or of the untuned device model, to each user."""
        with self.together():
            for user in users:
                self._append(user, DOWN, kind, "", 0, ("weights",), size, base_id)

    def endpoint(self, prompts: Mapping[str, Sequence[str]]) -> None:
        """Record, before they leave, the prompts with each user's shared records for an endpoint.

        What the endpoint fails to answer is sent again within its budget; that is counted apart.
        """
        with self.together():
            for user, own in sorted(prompts.items()):
                sent = [prompt.encode("utf-8", "replace") for prompt in own]
                records, digest = len(set(own)), hash_bytes(b"\0".join(sorted(sent)))
                size = sum(map(len, sent))
                self._append(user, ENDPOINT, AUGMENT, "", records, ("prompt",), size, digest)

    def oracle(self, arm: str, user: str, history: bytes, records: int) -> None:
        """Record that an oracle read the whole history of ``user``, queries included."""
        self._append(
            user, ORACLE, HISTORY, arm, records, ("history",), len(history), hash_bytes(history)
        )

    def tombstone(self, user: str, records: Sequence[str]) -> None:
        """Record that ``user`` withdrew records, named by their hashes, which were forgotten."""
        digest = hash_bytes("".join(sorted(records)).encode())
        self._append(user, UP, WITHDRAWAL, "", len(records), ("tombstone",), 0, digest)

    def _append(
        self,
        user: str,
        direction: str,
        kind: str,
        arm: str,
        records: int,
        fields: tuple[str, ...],
        size: int,
        digest: str,
        request: str = "",
    ) -> None:
        # two answers to one request differ in their times alone: they are the same delivery
        key = (user, direction, kind, arm, request or digest)
        if kind in _ONE_TIME and key in self._seen:
            return
        again = key in self._seen
        entry = Entry(user, direction, kind, arm, records, fields, size, digest, request, again)
        self._seen.add(key)
        if self._held is None:
            self._write([asdict(entry)])
        else:
            self._held.append(asdict(entry))

    def _write(self, entries: list[dict[str, Any]]) -> None:
        linked = list(chain.linked(entries, self._last))
        jsonlines.append(self._path, linked)
        self._last = str(linked[-1][chain.LINE]) if linked else self._last


def _arm(content: RecordDict) -> str:
    texts: Mapping[str, Any] = content.config_records.get(TEXTS, {})  # a reply may lack it
    return str(texts.get("arm", ""))


def _num_pairs(content: RecordDict) -> int:
    return sum(
        len(ids)
        for record in content.config_records.values()
        if isinstance(ids := record.get("id"), list)
    )


def _filled_fields(content: RecordDict) -> tuple[str, ...]:
    names = set(content.array_records)
    records: dict[str, Any] = {**content.config_records, **content.metric_records}
    for key, record in records.items():
        if isinstance(record.get("id"), list):
            if record["id"]:
                names.add(key.rsplit(".", 1)[0])
        else:
            names |= {name for name, value in record.items() if value not in ([], "")}
    return tuple(sorted(names))
