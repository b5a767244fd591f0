"""The Flower ClientApp: nine messages, each a few lines; the work lies in the modules beside it.

Every message is charged to the device's budget before it is answered, every reply leaves through
:func:`clients.outbound.release`, and an error leaves as the name of its class.

Which user a node is comes from where the node's folder lies, never from the server: a real device
is started with ``device-folder`` in its node config; a virtual client takes the folder of its
partition. What needs the base model goes to the real device's trainer, which keeps it in memory
(``trainer-idle-s`` in the node config; 0 for none): Flower starts a process per message there.
"""

from __future__ import annotations

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from clients import download, folder, handlers, outbound, paths, trainer_client, withdrawal
from clients.errors import errors_stay
from clients.folder import Device
from clients.handlers import HANDLERS, Place
from clients.paths import real_folder
from clients.watchdog import limit_of, watchdog
from conf.errors import ConfigError, ProtocolError
from protocol.codec import WireMessage, decode
from protocol.messages import (
    DEVICE_TO_SERVER,
    PROTOCOL_VERSION,
    BaseRequest,
    HelloReply,
    HelloRequest,
    WithdrawReply,
    WithdrawRequest,
)

IDLE_KEY = "trainer-idle-s"

app = ClientApp(mods=[errors_stay, watchdog])


@app.query("hello")
def hello(message: Message, context: Context) -> Message:
    """Say whose device this is, and which base models a real one holds."""
    device, own = _charged(message, context), real_folder(context)
    decode(HelloRequest, message.content)
    said = HelloReply(
        user_id=device.user_id,
        version=PROTOCOL_VERSION,
        downloads=own is not None,
        held=download.held(own) if own else (),
    )
    return _reply(message, device, said)


@app.query("base")
def base(message: Message, context: Context) -> Message:
    """Keep one part of a base model; a virtual device reads the server's folder and takes none."""
    device = _charged(message, context)
    if real_folder(context) is None:
        raise ProtocolError(f"{BaseRequest.TYPE}: a virtual device downloads nothing")
    request = decode(BaseRequest, message.content)
    return _reply(message, device, download.receive(device, request))


@app.query("share")
def share(message: Message, context: Context) -> Message:
    """Send the records that the user's consent covers, no more."""
    return _handled(message, context)


@app.query("withdraw")
def withdraw(message: Message, context: Context) -> Message:
    """Name what the user took back, by the hashes of what had left."""
    device = _charged(message, context)
    decode(WithdrawRequest, message.content)
    records = withdrawal.hashes_as_sent(device, device.policy.withdrawn)
    return _reply(message, device, WithdrawReply(user_id=device.user_id, records=records))


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
    device, place = _charged(message, context), _place(context)
    kind = message.metadata.message_type
    idle_s = trainer_idle_s(context) if place.real else 0.0
    if idle_s and handlers.needs_model(kind):
        limit_s = limit_of(context)
        done = trainer_client.ask(place.own, kind, message.content, idle_s, limit_s)
        if done is not None:
            return _reply(message, device, decode(DEVICE_TO_SERVER[kind], done))
    return _reply(message, device, HANDLERS[kind](place, message.content))


def _place(context: Context) -> Place:
    if own := real_folder(context):
        return Place((own,), 0, download.bases_folder(own), real=True)
    folders, index = paths.virtual_folders(context)
    return Place(folders, index, paths.bases_root(context), real=False)


def _charged(message: Message, context: Context) -> Device:
    """The device, once its budget has room for this message."""
    device = folder.read(paths.own_folder(context))
    outbound.charge(device, message.metadata.message_type)
    return device


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


def _reply(message: Message, device: Device, body: WireMessage) -> Message:
    """The only way out of a device for what it computed."""
    kind = message.metadata.message_type
    return Message(outbound.release(device, kind, body), reply_to=message)
