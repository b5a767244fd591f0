"""The product's own ClientApp with one more mod in it, which strikes devices as a table says.

The table and the count of strikes lie in files, because every strike may cost the process.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import time
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable

from clients import app as product
from clients import paths
from clients.errors import errors_stay
from clients.folder import device_folders
from clients.watchdog import watchdog

FOLDER = "CDCDA_FAULTS"
ALWAYS = 10**6


def strike(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Do to this device what the table says, so many times."""
    folder = Path(os.environ[FOLDER])
    table = json.loads((folder / "table.json").read_text())
    fault = table.get(folder_of(context).name)
    if fault and fault["at"] == message.metadata.message_type:
        counter = folder / f"{fault['what']}.count"
        done = counter.stat().st_size if counter.is_file() else 0
        if done < fault["times"]:
            with counter.open("ab") as file:
                file.write(b"x")
            ACTS[fault["what"].partition(" ")[0]](context)
    return call_next(message, context)


def folder_of(context: Context) -> Path:
    """The device's folder, also where the device itself cannot be read."""
    folders = device_folders(paths.devices_root(context))
    return folders[int(context.node_config["partition-id"])]


def _raise(_: Context) -> None:
    raise ValueError("a fault of the test")


def _kill(_: Context) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _hang(_: Context) -> None:
    time.sleep(3600)


def _memory(_: Context) -> None:
    """Take memory until there is none left for this process."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + (64 << 20), before[1]))
    try:
        bytearray(1 << 30)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _break(context: Context) -> None:
    path = folder_of(context) / "history.json"
    path.with_name("history.good").write_bytes(path.read_bytes())
    path.write_bytes(path.read_bytes()[:100])


ACTS = {"raise": _raise, "kill": _kill, "hang": _hang, "memory": _memory, "break": _break}

app = ClientApp(mods=[errors_stay, watchdog, strike])
app.query("hello")(product.hello)
app.query("share")(product.share)
app.train("adapt")(product.adapt)
app.evaluate("answer")(product.answer)
