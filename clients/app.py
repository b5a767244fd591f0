"""The Flower ClientApp: seven messages, each a few lines; the work lies in the modules beside it.

Which user a node is comes from where the node's folder lies, never from the server: a real device
is started with ``device-folder`` in its node config; a virtual client takes the folder of its
partition.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from clients import asking, consent, download, folder, places, usefulness
from clients.folder import Device
from clients.watchdog import watchdog
from conf.errors import ProtocolError, RunError
from protocol.codec import WireMessage, decode, encode
from protocol.messages import (
    PROTOCOL_VERSION,
    AdaptRequest,
    AnswerRequest,
    BaseRequest,
    CollectRequest,
    HelloReply,
    QueueRequest,
    ShareReply,
    ShareRequest,
)
from protocol.recipe import recipe_from_json
from protocol.settings import DeviceSettings, settings_from_json

if TYPE_CHECKING:
    from clients.base import Base

app = ClientApp(mods=[watchdog])


@app.query("hello")
def hello(message: Message, context: Context) -> Message:
    """Say whose device this is, and which base models a real one holds."""
    own = real_folder(context)
    return _reply(
        message,
        HelloReply(
            user_id=_device(context).user_id,
            version=PROTOCOL_VERSION,
            downloads=own is not None,
            held=download.held(own) if own else (),
        ),
    )


@app.query("base")
def base(message: Message, context: Context) -> Message:
    """Keep one part of a base model; a virtual device reads the server's folder and takes none."""
    if real_folder(context) is None:
        raise ProtocolError(f"{BaseRequest.TYPE}: a virtual device downloads nothing")
    return _reply(message, download.receive(_device(context), decode(BaseRequest, message.content)))


@app.query("share")
def share(message: Message, context: Context) -> Message:
    """Send the records that the user's consent covers, no more."""
    device, request = _device(context), decode(ShareRequest, message.content)
    stream = recipe_from_json(request.recipe).stream
    if device.policy.select == "dac24" and stream is not None:
        settings = settings_from_json(request.settings)
        base = _base(context, request.base_id, settings)
        usefulness.keep_order(device, base, stream, settings)
    granted = consent.grant(device, request.ratios)
    return _reply(
        message,
        ShareReply(
            user_id=device.user_id,
            pairs=granted.pairs,
            counts=granted.counts,
            redactions=granted.redactions,
        ),
    )


@app.train("adapt")
def adapt(message: Message, context: Context) -> Message:
    """Train the private adapter of one arm and keep it here."""
    from clients.adaptation import adapt as run  # heavy imports stay out of the driver

    request = decode(AdaptRequest, message.content)
    settings = settings_from_json(request.settings)
    base = _base(context, request.base_id, settings)
    return _reply(message, run(_device(context), base, request, settings))


@app.train("queue")
def queue(message: Message, context: Context) -> Message:
    """Keep what an adapter is to be trained on until it is collected."""
    from clients.cohorts import queue as run

    request = decode(QueueRequest, message.content)
    settings = settings_from_json(request.settings)
    return _reply(message, run(_device(context), _cohort(context, settings), request))


@app.train("collect")
def collect(message: Message, context: Context) -> Message:
    """Train what was queued, on a simulation's device together with its cohort."""
    from clients.cohorts import collect as run

    request = decode(CollectRequest, message.content)
    settings = settings_from_json(request.settings)
    base, mates = _base(context, request.base_id, settings), _cohort(context, settings)
    return _reply(message, run(_device(context), mates, base, request, settings))


@app.evaluate("answer")
def answer(message: Message, context: Context) -> Message:
    """Answer the user's own queries offline and report numbers."""
    from clients.cohorts import answer as run

    request = decode(AnswerRequest, message.content)
    settings = settings_from_json(request.settings)
    base, mates = _base(context, request.base_id, settings), _cohort(context, settings)
    return _reply(message, run(_device(context), mates, base, request, settings))


def _device(context: Context) -> Device:
    return folder.read(_own_folder(context))


def real_folder(context: Context) -> Path | None:
    """The folder that a real device was started with; None for a virtual one."""
    own = context.node_config.get("device-folder")
    return Path(str(own)) if own else None


def _own_folder(context: Context) -> Path:
    if own := real_folder(context):
        return own
    folders, index = _virtual(context)
    return folders[index]


def _cohort(context: Context, settings: DeviceSettings) -> tuple[Path, ...]:
    """The folders of the devices that this one works with: on a real device only its own."""
    size = settings.qlora.cohort
    if real_folder(context) or size == "auto":
        return (_own_folder(context),)
    folders, index = _virtual(context)
    start = index - index % size
    return folders[start : start + size]


def _virtual(context: Context) -> tuple[tuple[Path, ...], int]:
    """All virtual devices' folders, and which of them is this one's."""
    folders = folder.device_folders(places.devices_root(context))
    index = int(context.node_config["partition-id"])
    if index >= len(folders):
        raise RunError(
            f"node {index}: there are only {len(folders)} devices; start as many nodes as users"
        )
    return folders, index


def _base(context: Context, base_id: str, settings: DeviceSettings) -> Base:
    from clients.base import load

    if not base_id.isalnum():  # it becomes a path: a server must not choose one
        raise ProtocolError(f"base_id: expected letters and digits, got {base_id[:40]!r}")
    own = real_folder(context)
    root = download.bases_folder(own) if own else places.bases_root(context)
    loaded = load(root / base_id, settings.qlora, settings.torch_threads)
    if own:
        asking.remember(own, settings)
    return loaded


def _reply(message: Message, body: WireMessage) -> Message:
    return Message(encode(body), reply_to=message)
