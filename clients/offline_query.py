"""``python -m clients folder=... "query"``: ask a real device, which needs nothing but its folder.

<folder>/settings.json   how the device trains and answers, as the server last said
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from clients import download, folder
from clients.folder import Device
from conf.errors import CdcdaError, ConfigError, RunError
from lamp.tasks import SLOT, Task, as_prompt, task
from protocol.settings import DeviceSettings, settings_from_json, settings_to_json
from storage import atomic

SETTINGS_FILE = "settings.json"
USAGE = 'usage: python -m clients folder=<device folder> [arm=<name>] "query"'
BASE_ALONE = "device"  # the arm that is M_base without an adapter


def main(argv: Sequence[str]) -> int:
    """Answer one query; the exit status is 0, or 2 with one line on stderr."""
    values = dict(word.split("=", 1) for word in argv if word.startswith(("folder=", "arm=")))
    query = " ".join(word for word in argv if not word.startswith(("folder=", "arm=")))
    try:
        if "folder" not in values or not query:
            raise ConfigError(USAGE)
        print(ask(Path(values["folder"]).expanduser(), values.get("arm"), query))
    except CdcdaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def ask(own: Path, arm: str | None, query: str) -> str:
    """Answer ``query`` on the real device with the folder ``own``.

    Args:
        own: The device's folder.
        arm: Whose adapter answers; None takes the one that was trained last, "device" none.
        query: A whole prompt, or just the text, which then gets the task's own prompt.

    Raises:
        RunError: If nothing was trained here yet.
    """
    device = folder.read(own)
    chosen, base_id = newest_adapter(device, None if arm == BASE_ALONE else arm)
    base_folder = download.bases_folder(own) / base_id
    adapter = None if arm == BASE_ALONE else chosen
    return answer_with(device, adapter, base_folder, settings_of(own), query)


def answer_with(
    device: Device, arm: str | None, base_folder: Path, settings: DeviceSettings, query: str
) -> str:
    """Answer ``query`` with the adapter of ``arm``, or the base in ``base_folder`` alone."""
    prompt = whole_prompt(task(settings.task), query)
    if settings.evaluation.runtime == "llamacpp":  # which needs no PyTorch model
        from clients import gguf_files

        weights = settings.evaluation.weights
        asked = [as_prompt(task(settings.task), prompt)]
        return gguf_files.answer(device, base_folder, arm, asked, settings, weights)[0].text
    from clients import base
    from clients.answering import answer_text

    loaded = base.load(base_folder, settings.qlora, settings.torch_threads)
    return answer_text(device, loaded, arm, prompt, settings)


def whole_prompt(task: Task, query: str) -> str:
    """A whole prompt as it is; round a bare text the wording that its records are trained with.

    Where that has no place for a text, LaMP-7, the wording of the queries.
    """
    if task.query_before in query:
        return query
    if SLOT in task.pair_prompt:
        return task.pair_prompt.replace(SLOT, query)
    return f"{task.query_before}{query}{task.query_after}"


def newest_adapter(device: Device, arm: str | None) -> tuple[str, str]:
    """Name of the adapter of ``arm`` (None: the last one trained) and id of its base model.

    Raises:
        RunError: If there is none.
        ConfigError: If there is none of that name.
    """
    complete = {path.name: path for path in folder.stored_adapters(device.folder)}
    if not complete:
        raise RunError(f"user {device.user_id}: no adapter; none was trained for this user yet")
    newest = max(complete, key=lambda name: complete[name].stat().st_mtime_ns)
    chosen = arm or newest
    if chosen not in complete:
        raise ConfigError(f"arm={chosen}: no such adapter. Known: {', '.join(complete)}")
    marker = json.loads((complete[chosen] / atomic.MARKER).read_text(encoding="utf-8"))
    return chosen, str(marker["base_id"])


def remember(own: Path, settings: DeviceSettings) -> None:
    """Keep the settings, so that the device can answer without a server."""
    atomic.write_text(own / SETTINGS_FILE, settings_to_json(settings))


def settings_of(own: Path) -> DeviceSettings:
    """What the real device with the folder ``own`` works by.

    Raises:
        RunError: If it has not trained yet.
    """
    try:
        return settings_from_json((own / SETTINGS_FILE).read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(
            f"{own.name}/{SETTINGS_FILE}: {error.strerror}; this device has not trained yet"
        ) from error
