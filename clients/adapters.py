"""The adapter store: one PEFT folder per user and arm, inside the user's own folder.

A stored adapter is complete when its marker file stands in it; a half-written one is never read.
The marker names the shared records behind the synthetic pairs or logits that the adapter saw. When
one of them is withdrawn the adapter is stale: it answers no more until it was trained anew.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from clients.folder import STALE, Device, stored_adapters
from conf.errors import ProtocolError, RunError
from models import lora
from storage import atomic
from storage.hashing import hash_bytes

SOURCES = "shared_sources"
PRIVATE = "private"  # whether DP-SGD trained it
_ARM_NAME = re.compile(r"[a-z0-9][a-z0-9_.@+-]{0,99}")


def adapter_folder(device: Device, arm: str) -> Path:
    """Where the adapter of ``arm`` lies.

    Raises:
        ProtocolError: If the server sent an arm name that is no plain file name.
    """
    if not _ARM_NAME.fullmatch(arm) or ".." in arm:
        raise ProtocolError(f"arm: expected a plain name such as 'cdcda@0.5', got {arm[:40]!r}")
    return device.folder / "adapters" / arm


def store(
    device: Device,
    arm: str,
    model: PeftModel,
    facts: dict[str, Any],
    state: Mapping[str, torch.Tensor] | None = None,
) -> int:
    """Write an adapter and return its bytes.

    Args:
        device: Whose adapter it is.
        arm: Its name.
        model: Base with the slot that the adapter fits.
        facts: What the marker file says.
        state: The matrices; None takes those in the slot.
    """
    folder = adapter_folder(device, arm)
    with atomic.new_folder(folder, marker=facts) as temporary:
        lora.save_state(model, lora.lora_parameters(model) if state is None else state, temporary)
    return sum(path.stat().st_size for path in folder.iterdir() if path.suffix == ".safetensors")


def load_into(device: Device, arm: str, model: PeftModel) -> None:
    """Load the stored adapter of ``arm`` into the slot of ``model``.

    Raises:
        RunError: If there is no complete adapter.
    """
    lora.load(model, stored(device, arm))


def read(device: Device, arm: str, model: PeftModel) -> dict[str, torch.Tensor]:
    """Return the matrices of the stored adapter of ``arm``, which fits the slot of ``model``.

    Raises:
        RunError: If there is no complete adapter.
    """
    return lora.read(model, stored(device, arm))


def fingerprint(device: Device, arm: str) -> str:
    """Hash of the stored adapter's weights, "" where there is none."""
    path = adapter_folder(device, arm) / lora.WEIGHTS_FILE
    return hash_bytes(path.read_bytes()) if path.is_file() else ""


def is_private(device: Device, arm: str) -> bool:
    """Whether the stored adapter was trained with DP-SGD."""
    marker = adapter_folder(device, arm) / atomic.MARKER
    return marker.is_file() and json.loads(marker.read_text(encoding="utf-8")).get(PRIVATE, False)


def is_current(device: Device, arm: str) -> bool:
    """Whether there is a complete adapter that saw nothing withdrawn."""
    folder = adapter_folder(device, arm)
    return not (folder / STALE).exists() and atomic.is_whole(folder)


def stored(device: Device, arm: str) -> Path:
    """Folder of the adapter of ``arm``.

    Raises:
        RunError: If there is no complete adapter, or it saw records that were withdrawn.
    """
    folder = adapter_folder(device, arm)
    if not atomic.is_complete(folder):
        raise RunError(f"user {device.user_id}: no adapter for arm '{arm}'; adapt before answering")
    if (folder / STALE).exists():
        raise RunError(
            f"user {device.user_id}: the adapter for arm '{arm}' saw records that were withdrawn; "
            "train it anew with python -m sim resume run=<run>"
        )
    if not atomic.is_whole(folder):
        raise RunError(
            f"user {device.user_id}: the adapter for arm '{arm}' is damaged; "
            "train it anew with python -m sim resume run=<run>"
        )
    return folder


def mark_stale(device: Device, withdrawn: Collection[str]) -> list[str]:
    """Delete the adapters that saw what these records gave rise to, and name their arms.

    Of each a mark is left, so that who asks for it is told why.
    """
    stale = []
    for folder in stored_adapters(device.folder):
        facts = json.loads((folder / atomic.MARKER).read_text(encoding="utf-8"))
        seen = sorted(set(facts.get(SOURCES, ())) & set(withdrawn))
        if seen:
            atomic.write_json(folder / STALE, {"withdrawn": seen})
            for weights in folder.glob("*.safetensors"):
                weights.unlink()
            stale.append(folder.name)
    return stale
