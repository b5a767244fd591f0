"""M_base on a real device: received in parts, checked, unpacked below the user's own folder.

A virtual device of a simulation reads the folder that the server wrote. A real one gets the bytes
by ``query.base`` and keeps them; it takes no model whose hash differs from what was announced, and
none that its policy does not name by hash or by the key that signed it. That says who made a model,
not that it asks for nothing: what its numbers can tell is bounded by the policy's budget.

    <folder>/bases/<base id>/          the unpacked model; the marker names the bundle's SHA-256
    <folder>/bases/.incoming-<id>/     parts that have come so far
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from clients.folder import Device
from conf.errors import ProtocolError
from protocol.messages import BaseReply, BaseRequest
from storage import atomic, bundle
from storage.writing import writing

DIGEST = "sha256"
MAX_PARTS = 1 << 16


def bases_folder(own: Path) -> Path:
    """Where the device with the folder ``own`` keeps base models."""
    return own / "bases"


def held(own: Path) -> tuple[str, ...]:
    """The SHA-256 of every base model that the device holds."""
    return tuple(
        sorted(
            json.loads(marker.read_text(encoding="utf-8"))[DIGEST]
            for marker in bases_folder(own).glob(f"[!.]*/{atomic.MARKER}")
        )
    )


def receive(device: Device, request: BaseRequest) -> BaseReply:
    """Keep one part; with the last one check and unpack the model.

    Raises:
        ProtocolError: If the request is malformed, or the bytes are not those that were announced.
    """
    _check(request)
    _require_vouched(device, request)
    root = bases_folder(device.folder)
    incoming = root / f".incoming-{request.base_id}"
    content = request.m_base or request.device_model
    atomic.write_bytes(_part(incoming, request, request.part), content["bytes"].tobytes())
    parts = [_part(incoming, request, number) for number in range(request.parts)]
    complete = all(part.is_file() for part in parts)
    if complete:
        _assemble(parts, incoming / "bundle.tar", request, root / request.base_id)
        shutil.rmtree(incoming)
    return BaseReply(user_id=device.user_id, complete=complete)


def _require_vouched(device: Device, request: BaseRequest) -> None:
    """Refuse a model, before anything of it is kept, that nobody vouches for whom the user trusts.

    Raises:
        ProtocolError: If policy.json names neither its digest nor a key that signed it.
    """
    policy = device.policy
    if request.digest in policy.bases:
        return
    if any(_is_signed(request, key) for key in policy.base_keys):
        return
    raise ProtocolError(
        f"{request.TYPE} {request.digest[:12]}...: policy.json names neither this SHA-256 in bases "
        "nor the key of its signature in base_keys"
    )


def _is_signed(request: BaseRequest, key: str) -> bool:
    try:
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key))
        public.verify(bytes.fromhex(request.signature), request.digest.encode("ascii"))
    except (InvalidSignature, ValueError):
        return False
    return True


def _check(request: BaseRequest) -> None:
    content = {**request.m_base, **request.device_model}
    sound = (
        request.base_id.isalnum()
        and request.digest.isalnum()
        and 0 <= request.part < request.parts <= MAX_PARTS
        and set(content) == {"bytes"}
        and content["bytes"].dtype.name == "uint8"
    )
    if not sound:
        raise ProtocolError(
            f"{request.TYPE}: expected an id, a hash, a part below the number of parts and its "
            "bytes; both sides must run the same version"
        )


def _part(incoming: Path, request: BaseRequest, number: int) -> Path:
    return incoming / f"{request.digest[:16]}-{request.parts}-{number}.part"


def _assemble(parts: list[Path], whole: Path, request: BaseRequest, target: Path) -> None:
    with writing(whole), whole.open("wb") as file:
        for part in parts:
            file.write(part.read_bytes())
    if (got := bundle.digest_of(whole)) != request.digest:
        shutil.rmtree(whole.parent)
        raise ProtocolError(
            f"{request.TYPE} {request.base_id}: expected SHA-256 {request.digest[:12]}..., got "
            f"{got[:12]}...; the model was not kept, send it again"
        )
    with atomic.new_folder(target, {DIGEST: got}) as made:
        bundle.unpack(whole, made)
