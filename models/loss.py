"""Loss of a model on texts that it does not learn from, without dropout."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from peft import PeftModel
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from models.chat import Encoded
from models.training import collate, scored_logits


@torch.inference_mode()
def mean_loss(
    model: PreTrainedModel | PeftModel, examples: Sequence[Encoded], pad_id: int, batch_size: int
) -> float | None:
    """Return the mean cross-entropy per scored token, in nats; None without a scored token."""
    was_training = model.training
    model.eval()
    total, tokens = 0.0, 0
    for start in range(0, len(examples), batch_size):
        batch = collate(examples[start : start + batch_size], pad_id, model.device)
        logits = scored_logits(model, batch)
        total += cross_entropy(logits, batch.targets, reduction="sum").item()
        tokens += len(batch.targets)
    model.train(was_training)
    return total / tokens if tokens else None
