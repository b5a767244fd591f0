"""One LoRA slot on a frozen base, used by one user after another.

The slot is made once and reset for each user: A drawn anew from the user's seed, B zero, as PEFT
does for a fresh adapter. Its weights are float32 whatever the base's type. On disk an adapter is a
PEFT folder that plain ``PeftModel.from_pretrained(base, folder)`` loads with the same logits.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel

from conf.errors import ModelError
from conf.schema import QLoraConfig
from models.quantisation import is_head

SLOT = "default"
CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
_SAME = ("peft_type", "r", "lora_alpha", "use_rslora", "use_dora", "target_modules")


def attach(model: PreTrainedModel, qlora: QLoraConfig, seed: int) -> PeftModel:
    """Freeze ``model`` and give it a slot, reset with ``seed``; the result is in eval mode.

    Every linear layer but ``lm_head`` is adapted; the names come from the model. The update is
    ``alpha / rank * B A x`` with A of shape (rank, d_in) and B of shape (d_out, rank).

    Raises:
        ModelError: If the model has no linear layer to adapt.
    """
    config = LoraConfig(
        r=qlora.rank,
        lora_alpha=qlora.alpha,  # type: ignore[arg-type]  # only ever a factor
        lora_dropout=qlora.dropout,
        target_modules=_target_names(model),
        bias="none",
        task_type=TaskType.CAUSAL_LM,
    )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # PEFT 0.21 asks transformers 5.23 for a property that is renamed in transformers 6
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
        peft_model = get_peft_model(model, config, adapter_name=SLOT)
    for weight in lora_parameters(peft_model).values():
        weight.data = weight.data.float()
    reset(peft_model, seed)
    return peft_model.eval()


def reset(peft_model: PeftModel, seed: int) -> None:
    """Make the slot a fresh adapter: A from ``seed``, B zero, no gradients."""
    state = fresh(peft_model, seed)
    with torch.no_grad():
        for name, weight in lora_parameters(peft_model).items():
            weight.grad = None
            weight.copy_(state[name])


def fresh(peft_model: PeftModel, seed: int) -> dict[str, torch.Tensor]:
    """Draw an untrained adapter that fits the slot: A from ``seed``, B zero; float32, on the CPU.

    A is uniform in ``[-1/sqrt(d_in), 1/sqrt(d_in)]``: PEFT's ``kaiming_uniform_(a=sqrt(5))``. The
    numbers are drawn on the CPU in one go, so a seed means the same adapter on every device.
    """
    shapes = {name: weight.shape for name, weight in lora_parameters(peft_model).items()}
    sizes = [shape.numel() for name, shape in shapes.items() if ".lora_A." in name]
    generator = torch.Generator().manual_seed(seed)
    drawn = iter(torch.rand(sum(sizes), generator=generator).mul_(2).sub_(1).split(sizes))
    return {
        name: next(drawn).view(shape) / math.sqrt(shape[1])
        if ".lora_A." in name
        else torch.zeros(shape)
        for name, shape in shapes.items()
    }


def lora_parameters(peft_model: PeftModel) -> dict[str, nn.Parameter]:
    """Return the slot's matrices by the names they have in an adapter file, in model order."""
    marker = f".{SLOT}.weight"
    return {
        name.removesuffix(marker) + ".weight": weight
        for name, weight in peft_model.named_parameters()
        if name.endswith(marker) and ".lora_" in name
    }


def zeros(peft_model: PeftModel) -> dict[str, torch.Tensor]:
    """Return the adapter that changes nothing, by the names of :func:`lora_parameters`."""
    weights = lora_parameters(peft_model).items()
    return {name: torch.zeros_like(weight, device="cpu") for name, weight in weights}


def snapshot(peft_model: PeftModel) -> dict[str, torch.Tensor]:
    """Return a copy of the slot's matrices by the names of :func:`lora_parameters`."""
    return {name: weight.detach().clone() for name, weight in lora_parameters(peft_model).items()}


def save(peft_model: PeftModel, folder: Path) -> None:
    """Write the slot to ``folder`` as ``adapter_config.json`` and ``adapter_model.safetensors``.

    Equal weights give equal bytes. Unlike PEFT's own ``save_pretrained`` this writes no model card
    and no path of the base model: the folder may be copied anywhere.
    """
    save_state(peft_model, lora_parameters(peft_model), folder)


def save_state(peft_model: PeftModel, state: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Write an adapter that need not be in the slot, as :func:`save` would if it were.

    Args:
        peft_model: Base with the slot that the adapter fits.
        state: Matrices by the names of :func:`lora_parameters`.
        folder: Where to; made if missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: weight.detach().cpu().contiguous() for name, weight in state.items()}
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    config = _config(peft_model) | {"base_model_name_or_path": None, "inference_mode": True}
    text = json.dumps(config, indent=2, sort_keys=True)
    (folder / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")


def load(peft_model: PeftModel, folder: Path) -> None:
    """Copy the adapter in ``folder`` into the slot if it fits; else change nothing.

    Raises:
        ModelError: If a file is missing or broken, or names, shapes, rank, alpha or kind of the
            adapter are not the slot's.
    """
    fill(peft_model, read(peft_model, folder), folder.name)


def read(peft_model: PeftModel, folder: Path) -> dict[str, torch.Tensor]:
    """Return the matrices of the adapter in ``folder``, which fits the slot.

    Raises:
        ModelError: As :func:`load`.
    """
    _require_same_config(peft_model, folder)
    tensors = _read_weights(folder)
    require_fit(peft_model, tensors, folder.name)
    return tensors


def fill(peft_model: PeftModel, tensors: Mapping[str, torch.Tensor], origin: str) -> None:
    """Copy matrices into the slot if they fit; else change nothing.

    Args:
        peft_model: Base with the slot.
        tensors: Matrices by the names of :func:`lora_parameters`.
        origin: Where they come from, for the message.

    Raises:
        ModelError: If names or shapes are not the slot's.
    """
    require_fit(peft_model, tensors, origin)
    with torch.no_grad():
        for name, weight in lora_parameters(peft_model).items():
            weight.copy_(tensors[name])


@contextmanager
def disabled(peft_model: PeftModel) -> Iterator[None]:
    """Answer with the frozen base alone inside the block."""
    with peft_model.disable_adapter():
        yield


def _target_names(model: nn.Module) -> list[str]:
    names = {
        name.rpartition(".")[2]
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and not is_head(name)
    }
    if not names:
        kind = type(model).__name__
        raise ModelError(f"model {kind}: expected linear layers to adapt, got none; use another")
    return sorted(names)


def _config(peft_model: PeftModel) -> dict[str, Any]:
    """Return the slot's configuration as JSON has it, with lists in a fixed order."""
    config = peft_model.peft_config[SLOT].to_dict()
    config["target_modules"] = sorted(config["target_modules"])
    loaded: dict[str, Any] = json.loads(json.dumps(config, default=_as_list))
    return loaded


def _as_list(value: Any) -> list[Any]:
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"adapter configuration: expected JSON values, got {type(value).__name__}")


def _require_same_config(peft_model: PeftModel, folder: Path) -> None:
    try:
        found = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unfit(folder.name, f"a readable {CONFIG_FILE}", type(error).__name__) from error
    expected = _config(peft_model)
    for key in _SAME:
        got = found.get(key) if isinstance(found, dict) else None
        if (sorted(got) if isinstance(got, list) else got) != expected[key]:
            raise _unfit(folder.name, f"{key}={expected[key]}", f"{got}")


def require_fit(peft_model: PeftModel, tensors: Mapping[str, torch.Tensor], origin: str) -> None:
    """Check matrices against the slot.

    Args:
        peft_model: Base with the slot.
        tensors: Matrices by the names of :func:`lora_parameters`.
        origin: Where they come from, for the message.

    Raises:
        ModelError: If names or shapes are not the slot's.
    """
    weights = lora_parameters(peft_model)
    if tensors.keys() != weights.keys():
        odd = sorted(tensors.keys() ^ weights.keys())
        raise _unfit(origin, "the slot's matrices", f"{len(odd)} other or missing ({odd[0]})")
    for name, tensor in tensors.items():
        if tensor.shape != weights[name].shape:
            expected, got = tuple(weights[name].shape), tuple(tensor.shape)
            raise _unfit(origin, f"{name} of shape {expected}", f"{got}")


def _read_weights(folder: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(folder / WEIGHTS_FILE)
    except (OSError, SafetensorError) as error:
        raise _unfit(folder.name, f"a readable {WEIGHTS_FILE}", type(error).__name__) from error


def _unfit(origin: str, expected: str, got: str) -> ModelError:
    return ModelError(
        f"adapter {origin}: expected {expected}, got {got}; train it again on this base"
    )
