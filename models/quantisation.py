"""NF4 layers: proof that they are NF4, their exact bytes, and a twin that computes the same.

An NF4 layer multiplies with weights that it dequantises anew at every call. The dequantised twin
does that once and keeps the result, so the numbers stay and the repeated work goes; memory is still
reported as the NF4 device would need it.
"""

from __future__ import annotations

from typing import Any

import torch
from bitsandbytes.functional import QuantState, dequantize_4bit
from bitsandbytes.nn.modules import Linear4bit
from torch import nn
from transformers import PreTrainedModel

from conf.errors import ModelError

QUANT_TYPE = "nf4"


class DequantisedLinear(nn.Linear):
    """A linear layer with the dequantised weight of an NF4 layer.

    Attributes:
        device_bytes: What the weight takes on the device, in NF4 with its constants.
    """

    device_bytes: int


def require_nf4(model: nn.Module, compute_dtype: torch.dtype) -> None:
    """Check every linear layer but ``lm_head``, and pin its compute type and storage layout.

    On CPUs with AVX512-BF16 the first forward in eval mode would repack a layer for another kernel,
    which rounds the block constants to bfloat16 and needs widths that are multiples of 64: training
    and answering would use different weights. The layout is pinned, so they use the same.

    Raises:
        ModelError: If a layer is not quantised, or not in NF4.
    """
    for name, layer in model.named_modules():
        if not isinstance(layer, nn.Linear) or is_head(name):
            continue
        found = _quant_type(layer)
        if found != QUANT_TYPE:
            raise ModelError(
                f"layer {name}: expected {QUANT_TYPE} weights, got {found}; quantise the plain "
                "checkpoint again"
            )
        _pin(layer, compute_dtype)


def is_head(name: str) -> bool:
    """Whether module ``name`` is the output layer, which is never quantised or adapted."""
    return name.rpartition(".")[2] == "lm_head"


def dequantise(model: PreTrainedModel) -> PreTrainedModel:
    """Replace each NF4 layer of ``model``, in place, by its dequantised twin.

    Each weight is bitsandbytes' own dequantisation in the layer's compute type, so that forward and
    backward use the very weights that the NF4 layer would use.

    Raises:
        ModelError: If a forward pass has repacked a layer; its constants are then rounded.
    """
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, Linear4bit)]
    for name, layer in layers:
        model.set_submodule(name, _twin(name, layer))
    # what transformers would refuse for a 4-bit model (casts, moves) is fine for the twin
    for flag in ("is_loaded_in_4bit", "is_quantized"):
        setattr(model, flag, False)
    return model


def device_memory_bytes(model: nn.Module) -> int:
    """Return the bytes of all weights as the NF4 device holds them, adapter included.

    4-bit codes with their block constants, the LoRA matrices in their own type, and everything that
    is not quantised (embeddings, norms, biases, an untied ``lm_head``). Shared weights count once.
    The same for an NF4 model and for its twin.
    """
    quantised = {id(layer.weight): layer_bytes(layer) for layer in _quantised_layers(model)}
    return sum(
        quantised.get(id(weight), weight.numel() * weight.element_size())
        for weight in model.parameters()
    )


def layer_bytes(layer: Linear4bit | DequantisedLinear) -> int:
    """Return the bytes of one quantised weight with its constants, without the bias."""
    if isinstance(layer, DequantisedLinear):
        return layer.device_bytes
    return _tensor_bytes(layer.weight.data) + _state_bytes(_state(layer))


def _state(layer: Linear4bit) -> QuantState:
    weight: Any = layer.weight  # bitsandbytes' Params4bit
    state: QuantState = weight.quant_state
    return state


def _quant_type(layer: nn.Linear) -> str:
    if not isinstance(layer, Linear4bit):
        return f"a plain layer in {layer.weight.dtype}"
    state = getattr(layer.weight, "quant_state", None)
    return "a 4-bit layer without its constants" if state is None else str(state.quant_type)


def _pin(layer: Any, compute_dtype: torch.dtype) -> None:
    layer.compute_dtype = compute_dtype
    layer.compute_type_is_set = True
    layer.support_avx512bf16_for_cpu = False


def _quantised_layers(model: nn.Module) -> list[Linear4bit | DequantisedLinear]:
    return [m for m in model.modules() if isinstance(m, Linear4bit | DequantisedLinear)]


def _twin(name: str, layer: Linear4bit) -> DequantisedLinear:
    state = _state(layer)
    if getattr(state, "packing_format_for_cpu", False):
        raise ModelError(
            f"layer {name}: expected untouched NF4 weights, got repacked ones; load the model "
            "again and dequantise it before its first forward pass"
        )
    dtype = layer.compute_dtype
    twin = DequantisedLinear(layer.in_features, layer.out_features, bias=False, device="meta")
    weight = dequantize_4bit(layer.weight.data, state).to(dtype)  # (out, in)
    twin.weight = nn.Parameter(weight, requires_grad=False)
    if layer.bias is not None:
        twin.bias = nn.Parameter(layer.bias.data.to(dtype), requires_grad=False)
    twin.device_bytes = layer_bytes(layer)
    return twin


def _state_bytes(state: QuantState) -> int:
    tensors = [state.absmax, state.code]
    if state.nested:
        tensors += [state.offset, state.state2.absmax, state.state2.code]
    return sum(_tensor_bytes(tensor) for tensor in tensors)


def _tensor_bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()
