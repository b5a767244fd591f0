"""What waits on a device: an adapt request that was queued, and replies that are to be collected.

Both lie as JSON in the device's own folder, so whichever process takes the device's next message
finds them. A device keeps one file per adapter and arm.

    <folder>/jobs/<adapter>.queued.json   a QueueRequest
    <folder>/jobs/<name>.reply.json       a reply, or why there is none
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from clients.folder import Device
from conf.errors import CdcdaError, ModelError, ProtocolError, RunError
from lamp.records import Pair
from protocol.codec import WireMessage
from protocol.messages import QueueRequest
from storage import atomic

R = TypeVar("R", bound=WireMessage)


def jobs_folder(device: Device) -> Path:
    """Where the device's jobs and replies lie."""
    return device.folder / "jobs"


def leave(device: Device, request: QueueRequest) -> None:
    """Keep a request until it is collected.

    The reply to another request is dropped; one to this very request, sent again after a crash,
    stays, so that nothing is trained twice.

    Raises:
        ProtocolError: If the request holds arrays, which are not queued.
    """
    if request.weights or request.logits:
        raise ProtocolError(
            f"{request.TYPE}: expected no arrays, got some for '{request.arm}'; send train.adapt"
        )
    name, value = request.adapter_name, asdict(request)
    if _read(_queued(device, name)) == json.loads(json.dumps(value)) and _is_good(device, name):
        return
    drop_reply(device, name)
    atomic.write_json(_queued(device, name), value)


def queued(device: Device, adapter: str) -> QueueRequest | None:
    """The request that waits for the adapter of this name, if any."""
    value = _read(_queued(device, adapter))
    if value is None:
        return None
    pairs = {name: tuple(Pair(**pair) for pair in value[name]) for name in ("kept", "public")}
    return QueueRequest(**{**value, **pairs})


def put_reply(device: Device, name: str, reply: WireMessage, provenance_key: str = "") -> None:
    """Keep a reply until its device is asked for it.

    Args:
        device: Whose reply it is.
        name: What it is the reply to.
        reply: A reply without arrays.
        provenance_key: Hash of what else the reply rests on.
    """
    atomic.write_json(
        _reply(device, name), {"reply": asdict(reply), "provenance_key": provenance_key}
    )


def put_error(device: Device, name: str, error: CdcdaError) -> None:
    """Keep the reason why there will be no reply."""
    atomic.write_json(_reply(device, name), {"error": str(error), "provenance_key": ""})


def reply(device: Device, name: str, kind: type[R], provenance_key: str = "") -> R | None:
    """The kept reply, if there is one that was made from the same.

    Raises:
        ModelError: If the work failed for this device.
    """
    value = _read(_reply(device, name))
    if value is None or value["provenance_key"] != provenance_key:
        return None
    if "error" in value:
        raise ModelError(value["error"])
    return kind(**_tuples(value["reply"]))


def is_done(device: Device, name: str) -> bool:
    """Whether there is a reply, or the reason why there is none."""
    return _reply(device, name).is_file()


def drop_reply(device: Device, name: str) -> None:
    """Forget a reply, if there is one."""
    _reply(device, name).unlink(missing_ok=True)


def _is_good(device: Device, name: str) -> bool:
    value = _read(_reply(device, name))
    return value is not None and "error" not in value


def _queued(device: Device, adapter: str) -> Path:
    return jobs_folder(device) / f"{adapter}.queued.json"


def _reply(device: Device, name: str) -> Path:
    return jobs_folder(device) / f"{name}.reply.json"


def _read(path: Path) -> dict[str, Any] | None:
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise RunError(f"{path.name}: broken JSON; delete the file and resume the run") from error
    return value


def _tuples(value: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(item) if isinstance(item, list) else item for key, item in value.items()}
