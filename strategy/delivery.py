"""Sends M_base to the devices that hold none of their own: hashed, in parts, through the ledger."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from flwr.app import Message

from conf.errors import ConfigError
from protocol.codec import encode
from protocol.messages import BaseRequest
from storage import bundle
from strategy.base_model import BaseModel, BaseModels
from strategy.grid import TTL_S, AccountedGrid, ignore_reply
from strategy.ledger import DEVICE_MODEL, M_BASE, Ledger
from strategy.progress import Progress
from strategy.registry import Registry

PART_BYTES = 32 << 20  # Flower cuts arrays into smaller pieces itself; this bounds the memory


def deliver_all(
    grid: AccountedGrid,
    bases: BaseModels,
    wanted: Collection[bool],
    registry: Registry,
    ledger: Ledger,
    progress: Progress,
    signing_key: Path | None,
) -> None:
    """See that every device has the models that it works with, once.

    To a real device they are sent; for a virtual one, which reads the server's folder, the ledger
    notes what a download would be.

    Args:
        grid: Where messages go.
        bases: The models.
        wanted: True where methods work with M_base, False where with the device model as it comes.
        registry: Who takes part.
        ledger: Where downloads of virtual devices are noted.
        progress: Where progress is told.
        signing_key: Private key with which models are signed; None signs nothing.
    """
    virtual = [user for user in registry.nodes if user not in registry.downloads]
    for tuned in sorted(wanted):
        base = bases.of(tuned=tuned)
        ledger.base_model(virtual, base.base_id, base.bytes, M_BASE if tuned else DEVICE_MODEL)
        if registry.downloads:
            deliver(
                grid,
                base,
                tuned=tuned,
                registry=registry,
                progress=progress,
                signing_key=signing_key,
            )


def deliver(
    grid: AccountedGrid,
    base: BaseModel,
    *,
    tuned: bool,
    registry: Registry,
    progress: Progress,
    signing_key: Path | None = None,
) -> None:
    """Send ``base`` to every device that downloads its models and does not hold this one.

    A device that could not take it fails later, with a reason of its own, when it is to be used.

    Args:
        grid: Where messages go.
        base: The model.
        tuned: Whether it is M_base rather than the device model as it comes.
        registry: Who takes part.
        progress: Where progress is told.
        signing_key: Private key with which the model is signed; None signs nothing.

    Raises:
        ConfigError: If the key cannot be used.
    """
    with TemporaryDirectory(prefix="bundle-") as folder:
        packed = Path(folder) / "base.tar"
        digest = bundle.pack(base.folder, packed)
        signature = _signature(digest, signing_key)
        wanting = [
            registry.nodes[user] for user, held in registry.downloads.items() if digest not in held
        ]
        if not wanting:
            return
        parts = math.ceil(packed.stat().st_size / PART_BYTES)
        with progress.phase(f"send {'M_base' if tuned else 'model'}", parts * len(wanting)) as bar:
            grid.on_reply = lambda _: bar.advance()
            for request in _requests(packed, base.base_id, digest, parts, tuned, signature):
                grid.send_and_receive(_to_all(request, wanting))
        grid.on_reply = ignore_reply


def _requests(
    packed: Path, base_id: str, digest: str, parts: int, tuned: bool, signature: str
) -> Iterator[BaseRequest]:
    with packed.open("rb") as file:
        for number in range(parts):
            content = {"bytes": np.frombuffer(file.read(PART_BYTES), dtype=np.uint8)}
            yield BaseRequest(
                base_id=base_id,
                digest=digest,
                part=number,
                parts=parts,
                m_base=content if tuned else {},
                device_model={} if tuned else content,
                signature=signature,
            )


def _signature(digest: str, signing_key: Path | None) -> str:
    if signing_key is None:
        return ""
    try:
        key = load_pem_private_key(signing_key.read_bytes(), password=None)
    except (OSError, TypeError, ValueError) as error:
        raise ConfigError(
            f"engine.signing_key: {signing_key.name} cannot be used ({type(error).__name__}); make "
            "one with openssl genpkey -algorithm ed25519"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"engine.signing_key: {signing_key.name} is no Ed25519 key")
    return key.sign(digest.encode("ascii")).hex()


def _to_all(request: BaseRequest, nodes: Sequence[int]) -> list[Message]:
    body = encode(request)
    return [
        Message(body, node, request.TYPE, ttl=TTL_S, group_id=f"base-{request.part}")
        for node in nodes
    ]
