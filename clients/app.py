"""The Flower ClientApp: seven messages, each a few lines; the work lies in the modules beside it.

Which user a node is comes from where the node's folder lies, never from the server: a real device
is started with ``device-folder`` in its node config; a virtual client takes the folder of its
partition. What needs the base model goes to the real device's trainer, which keeps it in memory
(``trainer-idle-s`` in the node config; 0 for none): Flower starts a process per message there.
"""

from __future__ import annotations

from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from clients import download, folder, handlers, places, trainer_client
from clients.folder import Device
from clients.handlers import HANDLERS, Place
from clients.watchdog import LIMIT_KEY, watchdog
from conf.errors import ConfigError, ProtocolError, RunError
from protocol.codec import WireMessage, decode, encode
from protocol.messages import PROTOCOL_VERSION, BaseRequest, HelloReply

IDLE_KEY = "trainer-idle-s"

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
    return _handled(message, context)


@app.train("adapt")
def adapt(message: Message, context: Context) -> Message:
    """Train the private adapter of one arm and keep it here."""
    return _handled(message, context)


@app.train("queue")
def queue(message: Message, context: Context) -> Message:
    """Keep what an adapter is to be trained on until it is collected."""
    return _handled(message, context)


@app.train("collect")
def collect(message: Message, context: Context) -> Message:
    """Train what was queued, on a simulation's device together with its cohort."""
    return _handled(message, context)


@app.evaluate("answer")
def answer(message: Message, context: Context) -> Message:
    """Answer the user's own queries offline and report numbers."""
    return _handled(message, context)


def _handled(message: Message, context: Context) -> Message:
    """Let the trainer of a real device do the work, or do it in this process."""
    place, kind = _place(context), message.metadata.message_type
    idle_s = trainer_idle_s(context) if place.real else 0.0
    if idle_s and handlers.needs_model(place, kind, message.content):
        limit_s = float(context.run_config[LIMIT_KEY])
        reply = trainer_client.ask(place.own, kind, message.content, idle_s, limit_s)
        if reply is not None:
            return Message(reply, reply_to=message)
    return _reply(message, HANDLERS[kind](place, message.content))


def _place(context: Context) -> Place:
    if own := real_folder(context):
        return Place((own,), 0, download.bases_folder(own), real=True)
    folders, index = _virtual(context)
    return Place(folders, index, places.bases_root(context), real=False)


def _device(context: Context) -> Device:
    return folder.read(_place(context).own)


def real_folder(context: Context) -> Path | None:
    """The folder that a real device was started with; None for a virtual one."""
    own = context.node_config.get("device-folder")
    return Path(str(own)) if own else None


def trainer_idle_s(context: Context) -> float:
    """Seconds without work after which a real device's trainer ends; 0 for no trainer.

    Raises:
        ConfigError: If it is no such number.
    """
    value = context.node_config.get(IDLE_KEY, trainer_client.IDLE_S)
    try:
        return max(0.0, float(value))
    except ValueError as error:
        raise ConfigError(
            f"node config {IDLE_KEY}: expected seconds, got {value!r}; 0 is no trainer"
        ) from error


def _virtual(context: Context) -> tuple[tuple[Path, ...], int]:
    """All virtual devices' folders, and which of them is this one's."""
    folders = folder.device_folders(places.devices_root(context))
    index = int(context.node_config["partition-id"])
    if index >= len(folders):
        raise RunError(
            f"node {index}: there are only {len(folders)} devices; start as many nodes as users"
        )
    return folders, index


def _reply(message: Message, body: WireMessage) -> Message:
    return Message(encode(body), reply_to=message)
