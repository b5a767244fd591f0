"""What a user runs elsewhere: the base and an adapter as files, for llama.cpp or PEFT.

    <out>/base-<id>/<weights>.gguf     M_base, once for all adapters on it
    <out>/<user>/<arm>/adapter.gguf    the adapter; model.gguf where it is merged
    <out>/<user>/<arm>/manifest.json   hashes, arm, prompt wording, stop tokens

In a simulation the command plays every user; a real device exports its own (``python -m clients
export``). The server has no message that asks for it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

from safetensors.torch import save_file

from clients import adapters, download, gguf_files, offline_query
from clients.folder import Device
from clients.folder import read as read_device
from conf.errors import CdcdaError, ConfigError
from conf.names import one_of
from conf.schema import GgufWeights, QLoraConfig
from lamp.tasks import task
from models import loading
from models.chat import stop_ids
from models.llamacpp import export as gguf
from models.lora import CONFIG_FILE, WEIGHTS_FILE
from protocol.settings import DeviceSettings
from storage import atomic
from storage.writing import writing

Format = Literal["gguf", "merged", "peft"]
FORMATS: tuple[Format, ...] = get_args(Format)
WEIGHTS: tuple[GgufWeights, ...] = get_args(GgufWeights)
MANIFEST = "manifest.json"
_OPTIONS = ("arm", "format", "weights")
USAGE = (
    "usage: python -m clients export folder=<device folder> out=<folder> [arm=<name>] "
    "[format=gguf|merged|peft] [weights=q8_0|q4_0|q4_k_m|f16]"
)


@dataclass(frozen=True, slots=True)
class Target:
    """Where to and in which form.

    Attributes:
        out: Folder that takes everything.
        format: "gguf" keeps base and adapter apart, "merged" writes one model, "peft" a folder for
            PEFT beside the base in Hugging Face layout.
        weights: Type of the matrices in a GGUF.
    """

    out: Path
    format: Format = "gguf"
    weights: GgufWeights = "q8_0"


def main(argv: Sequence[str]) -> int:
    """Export from a real device's folder; the exit status is 0, or 2 with one line on stderr."""
    values = dict(word.partition("=")[::2] for word in argv)
    try:
        if not {"folder", "out"} <= values.keys() <= {"folder", "out", *_OPTIONS}:
            raise ConfigError(USAGE)
        print(
            _export_own(Path(values["folder"]).expanduser(), target_of(values), values.get("arm"))
        )
    except CdcdaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def target_of(values: Mapping[str, str]) -> Target:
    """Read out, format and weights as a user typed them.

    Raises:
        ConfigError: If a value is none of those that are known, or has no effect.
    """
    chosen = one_of("format", values.get("format", "gguf"), FORMATS)
    if chosen == "peft" and "weights" in values:
        raise ConfigError("export: weights has no effect with format=peft; leave it out")
    weights = one_of("weights", values.get("weights", "q8_0"), WEIGHTS)
    return Target(Path(values["out"]).expanduser().absolute(), chosen, weights)


def _export_own(own: Path, target: Target, arm: str | None) -> Path:
    device = read_device(own)
    chosen, base_id = offline_query.newest_adapter(device, arm)
    base_folder = download.bases_folder(own) / base_id
    return export(device, chosen, base_folder, offline_query.settings_of(own), target)


def export(
    device: Device, arm: str, base_folder: Path, settings: DeviceSettings, target: Target
) -> Path:
    """Write the adapter of ``arm``, and its base where it is not there yet.

    Returns:
        The folder with the manifest.

    Raises:
        RunError: If there is no such adapter, it saw withdrawn records, or the disk is full.
        ModelError: If base or adapter cannot be written in this form.
    """
    source = adapters.stored(device, arm)
    folder = target.out / device.folder.name / arm
    files: dict[str, Path] = {}
    if target.format != "merged":
        files["base"] = _base(base_folder, settings.qlora, target)
    with atomic.new_folder(folder) as made:
        if target.format == "peft":
            for name in (CONFIG_FILE, WEIGHTS_FILE):
                shutil.copyfile(source / name, made / name)
            files["adapter"] = folder / WEIGHTS_FILE
        elif target.format == "gguf":
            config = loading.config_of(base_folder)
            gguf.write_adapter(gguf.read_adapter(source), config, made / "adapter.gguf", arm)
            files["adapter"] = folder / "adapter.gguf"
        else:
            whole = gguf.merged(_network(base_folder, settings.qlora), gguf.read_adapter(source))
            gguf.write_base(whole, target.weights, made / "model.gguf", arm)
            files["model"] = folder / "model.gguf"
        listed = {
            name: _listed(made / path.name if path.parent == folder else path, path, folder)
            for name, path in files.items()
        }
        facts = {"user": device.user_id, "arm": arm, "base_id": base_folder.name}
        how = {"format": target.format, "files": listed, **_use(base_folder, settings)}
        atomic.write_json(made / MANIFEST, {**facts, **how})
    return folder


def _base(base_folder: Path, qlora: QLoraConfig, target: Target) -> Path:
    """The base's file in the exported folder; written at the first adapter that needs it."""
    folder = target.out / f"base-{base_folder.name[:12]}"
    if target.format == "peft":
        whole = folder / "huggingface"
        if not atomic.is_whole(whole):
            with atomic.new_folder(whole) as made:
                _write_plain(_network(base_folder, qlora), made)
        return whole / "model.safetensors"
    path = folder / f"{target.weights}.gguf"
    if not path.is_file():
        kept = gguf_files.base_file(base_folder, qlora, target.weights)
        with writing(path), atomic.new_file(path) as temporary:
            _link_or_copy(kept, temporary)
    return path


def _link_or_copy(source: Path, target: Path) -> None:
    """A second name of a file that nobody changes, or a copy on another file system."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _write_plain(network: gguf.Network, folder: Path) -> None:
    """The dequantised base in Hugging Face layout, which knows nothing of bitsandbytes."""
    config = type(network.config).from_dict(
        {k: v for k, v in network.config.to_dict().items() if k != "quantization_config"}
    )
    config.save_pretrained(folder)
    state = dict(network.state)
    if config.tie_word_embeddings:
        state.pop("lm_head.weight", None)
    tensors = {name: tensor.contiguous() for name, tensor in state.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    network.tokenizer.save_pretrained(folder)


def _listed(there: Path, path: Path, folder: Path) -> dict[str, Any]:
    return {
        "path": os.path.relpath(path, folder),
        "bytes": there.stat().st_size,
        "sha256": _sha256(there, there.stat().st_mtime_ns),
    }


@lru_cache(maxsize=8)
def _sha256(path: Path, _changed: int) -> str:  # a base is hashed once for all users
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _use(base_folder: Path, settings: DeviceSettings) -> dict[str, Any]:
    """What whoever runs the files must know."""
    tokenizer, kind = loading.load_tokenizer(base_folder), task(settings.task)
    stops = stop_ids(tokenizer, settings.system_prompt)
    return {
        "task": kind.name,
        "prompt": {
            "system": settings.system_prompt,
            "trained": kind.pair_prompt,
            "asked_before": kind.query_before,
            "asked_after": kind.query_after,
        },
        "stop": {"ids": list(stops), "tokens": tokenizer.convert_ids_to_tokens(list(stops))},
        "max_new_tokens": settings.task.max_new_tokens,
        "temperature": 0,
    }


@lru_cache(maxsize=1)
def _network(base_folder: Path, qlora: QLoraConfig) -> gguf.Network:
    return gguf.read_network(base_folder, qlora)
