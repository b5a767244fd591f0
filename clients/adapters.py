"""The adapter store: one PEFT folder per user and arm, inside the user's own folder.

A stored adapter is complete when its marker file stands in it; a half-written one is never read.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from peft import PeftModel

from clients.folder import Device
from conf.errors import ProtocolError, RunError
from models import lora
from storage import atomic

_ARM_NAME = re.compile(r"[a-z0-9][a-z0-9_.@+-]{0,99}")


def adapter_folder(device: Device, arm: str) -> Path:
    """Where the adapter of ``arm`` lies.

    Raises:
        ProtocolError: If the server sent an arm name that is no plain file name.
    """
    if not _ARM_NAME.fullmatch(arm) or ".." in arm:
        raise ProtocolError(f"arm: expected a plain name such as 'cdcda@0.5', got {arm[:40]!r}")
    return device.folder / "adapters" / arm


def store(device: Device, arm: str, model: PeftModel, facts: dict[str, Any]) -> int:
    """Write the adapter slot of ``model`` and return its bytes."""
    folder = adapter_folder(device, arm)
    with atomic.new_folder(folder, marker=facts) as temporary:
        lora.save(model, temporary)
    return sum(path.stat().st_size for path in folder.iterdir() if path.suffix == ".safetensors")


def load_into(device: Device, arm: str, model: PeftModel) -> None:
    """Load the stored adapter of ``arm`` into the slot of ``model``.

    Raises:
        RunError: If there is no complete adapter.
    """
    folder = adapter_folder(device, arm)
    if not atomic.is_complete(folder):
        raise RunError(f"user {device.user_id}: no adapter for arm '{arm}'; adapt before answering")
    lora.load(model, folder)
