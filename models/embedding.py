"""Embeddings of texts by a causal model's own last hidden states, in batches of similar length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from models import lora
from models.chat import encode_text, pad_id


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """What the model makes of one text.

    Attributes:
        vector: (D,) float32 mean of the tokens' last hidden states, scaled to length 1; zeros for
            a text without tokens.
        norms: (n,) float64 Euclidean norm of each token's last hidden state.
    """

    vector: NDArray[np.float32]
    norms: NDArray[np.float64]


@torch.inference_mode()
def embed(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    batch_size: int,
    max_tokens: int,
) -> list[Embedding]:
    """Embed ``texts`` with the frozen base, the adapter switched off.

    Args:
        model: Base with an adapter slot.
        tokenizer: Its tokenizer.
        texts: Plain texts; no chat template stands around them.
        batch_size: Texts in one pass.
        max_tokens: Longer texts are cut at the end.

    Returns:
        One embedding per text, in their order.
    """
    encoded = [encode_text(tokenizer, text)[:max_tokens] for text in texts]
    order = sorted((i for i in range(len(encoded)) if encoded[i]), key=lambda i: len(encoded[i]))
    empty = Embedding(np.zeros(model.config.hidden_size, dtype=np.float32), np.zeros(0))
    found = [empty] * len(texts)
    with lora.disabled(model):
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            rows = [encoded[index] for index in chosen]
            for index, each in zip(chosen, _embed(model, rows, pad_id(tokenizer)), strict=True):
                found[index] = each
    return found


def _embed(model: PeftModel, rows: Sequence[Sequence[int]], pad: int) -> list[Embedding]:
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows], device=model.device)
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    backbone: Any = model.get_base_model().base_model
    output = backbone(input_ids=ids, attention_mask=mask.to(model.device), use_cache=False)
    states = output.last_hidden_state.float().cpu()  # (B, T, D)
    norms = states.norm(dim=-1).double().numpy()
    sums = (states * mask.unsqueeze(-1)).sum(1)
    vectors = torch.nn.functional.normalize(sums, dim=-1).numpy()
    return [Embedding(vectors[i].copy(), norms[i, : len(row)]) for i, row in enumerate(rows)]
