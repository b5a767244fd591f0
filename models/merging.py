"""An adapter added into the frozen base's weights for as long as one user is answered.

Decoding one prompt at a time costs operations, not arithmetic: each adapted layer runs two small
products, a scaling and a sum beside its own. Merged, it runs its own alone. The sum is rounded to
the base's type once, so logits differ from those of base and adapter apart by that rounding: nearly
nothing in float32, as much as bfloat16 itself in bfloat16 (docs/device.md has the numbers).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import cast

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from conf.errors import ModelError
from models import lora
from models.multi_lora.stacked import Layer, adapted_layers, installed


@contextmanager
def merged(model: PeftModel, adapter: Mapping[str, torch.Tensor]) -> Iterator[PreTrainedModel]:
    """Replace the slot's layers inside the block by plain ones with W + alpha / r * B A.

    The base's own weights stay where they are, so that leaving the block restores them to the last
    bit; inside it the linear layers are in memory twice.

    Args:
        model: Frozen base with an adapter slot; the slot's content is neither read nor changed.
        adapter: Matrices by the names of :func:`models.lora.lora_parameters`.

    Yields:
        The base model, which has no adapter and answers as if it had this one.

    Raises:
        ModelError: If the adapter does not fit, or a layer is in 4 bits, which cannot hold a sum.
    """
    lora.require_fit(model, adapter, "to answer with")
    sums = [(each.name, _sum(each, adapter)) for each in adapted_layers(model)]
    with installed(model, sums) as base:
        yield cast("PreTrainedModel", base)


@torch.no_grad()
def _sum(layer: Layer, adapter: Mapping[str, torch.Tensor]) -> nn.Linear:
    base = layer.base
    if not isinstance(base, nn.Linear) or not base.weight.is_floating_point():
        raise ModelError(
            f"layer {layer.name}: expected a dequantised weight to merge an adapter into, got "
            f"{type(base).__name__}; set qlora.dequantise_once=true, or leave "
            "evaluation.merge_adapters out"
        )
    weight = base.weight
    a, b = (
        adapter[f"{layer.name}.lora_{each}.weight"].to(weight.device, torch.float32)
        for each in "AB"
    )
    whole = torch.addmm(weight.float(), b, a, alpha=layer.scaling).to(weight.dtype)  # (out, in)
    plain = nn.Linear(base.in_features, base.out_features, bias=False, device="meta")
    plain.weight = nn.Parameter(whole, requires_grad=False)
    plain.bias = base.bias
    return plain.eval()
