"""How surprised a model is by single examples; nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from peft import PeftModel
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from models.chat import Encoded
from models.training import collate, scored_logits


@torch.inference_mode()
def example_losses(
    model: PreTrainedModel | PeftModel, examples: Sequence[Encoded], pad_id: int, batch_size: int
) -> list[float]:
    """Return each example's cross-entropy, summed over its scored tokens, in nats.

    Examples of similar length share a batch; the losses come in the order of the examples.
    """
    order = sorted(range(len(examples)), key=lambda index: len(examples[index].input_ids))
    losses = [0.0] * len(examples)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = collate([examples[index] for index in chosen], pad_id, model.device)
        each = cross_entropy(scored_logits(model.eval(), batch), batch.targets, reduction="none")
        rows = each.cpu().split(batch.scored.sum(dim=1).tolist())
        for index, row in zip(chosen, rows, strict=True):
            losses[index] = float(row.double().sum())
    return losses
