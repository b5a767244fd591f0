"""What a device answers through llama.cpp: its base and its adapters as GGUF, made when asked for.

    <bases>/<base id>-gguf/<weights>.gguf          the base, once for all devices that share it
    <device>/gguf/<arm>-<hash of its weights>.gguf an adapter

Nothing of it leaves the device; :mod:`clients.export` writes what its user takes elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from filelock import FileLock

from clients import adapters
from clients.folder import Device
from conf.schema import GgufWeights, QLoraConfig
from lamp.records import Prompt
from models import loading
from models.chat import encode_turn, stop_ids
from models.generation import Generation
from models.llamacpp import export
from models.llamacpp.runtime import Runtime, binding
from protocol.answers import greedy
from protocol.settings import DeviceSettings
from storage.writing import writing


def base_file(base_folder: Path, qlora: QLoraConfig, weights: GgufWeights) -> Path:
    """The base as GGUF; written if it is not there yet.

    Raises:
        ModelError: If there is no such base, or it cannot be a GGUF.
    """
    path = base_folder.with_name(f"{base_folder.name}-gguf") / f"{weights}.gguf"
    if not path.is_file():
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if not path.is_file():
                network = export.read_network(base_folder, qlora)
                export.write_base(network, weights, path, f"M_base {base_folder.name[:8]}")
    return path


def adapter_file(device: Device, arm: str, base_folder: Path) -> Path:
    """The adapter of ``arm`` as GGUF; written if it is not there yet, older ones are removed.

    Raises:
        RunError: If there is no such adapter, or it saw records that were withdrawn.
    """
    folder = adapters.stored(device, arm)
    target = device.folder / "gguf"
    path = target / f"{arm}-{adapters.fingerprint(device, arm)[:16]}.gguf"
    if not path.is_file():
        for old in target.glob(f"{arm}-{'[0-9a-f]' * 16}.gguf"):
            old.unlink(missing_ok=True)
        config = loading.config_of(base_folder)
        export.write_adapter(export.read_adapter(folder), config, path, arm)
    return path


def answer(
    device: Device,
    base_folder: Path,
    arm: str | None,
    asked: Sequence[Prompt],
    settings: DeviceSettings,
    weights: GgufWeights,
) -> list[Generation]:
    """Answer prompts greedily through llama.cpp, with the adapter of ``arm`` or the base alone.

    The prompts become tokens as they do for training: a user's text never becomes a control token.

    Raises:
        ModelError: If the binding is not installed, or a model cannot be loaded.
        RunError: If there is no such adapter.
    """
    binding()  # before minutes are spent on files that only it reads
    runtime = _runtime(base_file(base_folder, settings.qlora, weights), settings.torch_threads)
    tokenizer, context = _tokenizer(base_folder), loading.context_size(base_folder)
    limit, system = greedy(settings).max_new_tokens, settings.system_prompt
    stops = stop_ids(tokenizer, system)
    adapter = None if arm is None else adapter_file(device, arm, base_folder)
    runtime.switch(adapter)
    try:
        return [
            replace(_generated(runtime, tokenizer, ids, limit, stops), shortened=shortened)
            for prompt in asked
            for ids, shortened in [encode_turn(tokenizer, prompt, system, context - limit)]
        ]
    finally:
        if adapter is not None:
            runtime.drop(adapter)


def _generated(
    runtime: Runtime, tokenizer: Any, ids: Sequence[int], limit: int, stops: Sequence[int]
) -> Generation:
    written = runtime.greedy(ids, limit, stops)
    kept = written.ids[:-1] if written.finished else written.ids
    text = tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return Generation(str(text), len(written.ids), written.finished)


@lru_cache(maxsize=1)
def _runtime(base: Path, threads: int) -> Runtime:
    return Runtime(base, threads=threads)


@lru_cache(maxsize=1)
def _tokenizer(base_folder: Path) -> Any:
    return loading.load_tokenizer(base_folder)
