"""Embeddings of texts by a causal model's own last hidden states, in batches of similar length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from conf.errors import ModelError
from models import lora
from models.chat import encode_text, pad_id
from models.losses import token_losses

Masses = Literal["token", "surprisal", "hidden"]
LAST_NORM = "norm"  # as Llama, Qwen, Mistral and Gemma call it


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """What the model makes of one text.

    Attributes:
        vector: (D,) float32 mean of the tokens' last hidden states, scaled to length 1; zeros for
            a text without tokens.
        masses: (m,) float64, what each part of the text weighs; see :func:`embed`.
        num_parts: How many parts could weigh the same; at least m.
    """

    vector: NDArray[np.float32]
    masses: NDArray[np.float64]
    num_parts: int


@torch.inference_mode()
def embed(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    batch_size: int,
    max_tokens: int,
    masses: Masses = "token",
) -> list[Embedding]:
    """Embed ``texts`` with the frozen base, the adapter switched off.

    Args:
        model: Base with an adapter slot.
        tokenizer: Its tokenizer.
        texts: Plain texts; no chat template stands around them.
        batch_size: Texts in one pass.
        max_tokens: Longer texts are cut at the end.
        masses: "token": how often each input embedding stands in the text, of as many parts as it
            has tokens; "surprisal": -log p of each token but the first, in nats; "hidden": the
            Euclidean norm of each hidden state in front of the last normalisation, without the
            first token, whose norm is large in any text and so tells the length alone.

    Returns:
        One embedding per text, in their order.

    Raises:
        ModelError: If "hidden" is asked for and the network has no last normalisation.
    """
    encoded = [encode_text(tokenizer, text)[:max_tokens] for text in texts]
    order = sorted((i for i in range(len(encoded)) if encoded[i]), key=lambda i: len(encoded[i]))
    empty = Embedding(np.zeros(model.config.hidden_size, dtype=np.float32), np.zeros(0), 0)
    found = [empty] * len(texts)
    with lora.disabled(model):
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            rows = [encoded[index] for index in chosen]
            made = _embed(model, rows, pad_id(tokenizer), masses)
            for index, each in zip(chosen, made, strict=True):
                found[index] = each
    return found


def _embed(
    model: PeftModel, rows: Sequence[Sequence[int]], pad: int, kind: Masses
) -> list[Embedding]:
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows], device=model.device)
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    base: Any = model.get_base_model()
    with _before_last_norm(base.base_model, wanted=kind == "hidden") as before:
        output = base.base_model(
            input_ids=ids, attention_mask=mask.to(model.device), use_cache=False
        )
    states = output.last_hidden_state  # (B, T, D)
    sums = (states.float().cpu() * mask.unsqueeze(-1)).sum(1)
    vectors = torch.nn.functional.normalize(sums, dim=-1).numpy()
    found = []
    for place, row in enumerate(rows):
        if kind == "token":
            masses = np.array([*Counter(row).values()], dtype=np.float64)
        elif kind == "hidden":
            masses = before[0][place, 1 : len(row)].float().norm(dim=-1).double().cpu().numpy()
        else:
            masses = _surprisal(base, states[place, : len(row)], ids[place, : len(row)])
        parts = len(row) if kind == "token" else len(masses)
        found.append(Embedding(vectors[place].copy(), masses, parts))
    return found


def _surprisal(base: Any, states: torch.Tensor, ids: torch.Tensor) -> NDArray[np.float64]:
    """Return (T - 1,): -log p of each token after the first."""
    losses = token_losses(states[:-1], base.get_output_embeddings(), ids[1:])
    surprisal: NDArray[np.float64] = losses.double().cpu().numpy()
    return surprisal


@contextmanager
def _before_last_norm(backbone: Any, wanted: bool) -> Iterator[list[torch.Tensor]]:
    """Collect what reaches the last normalisation inside the block, where it is wanted."""
    seen: list[torch.Tensor] = []
    if not wanted:
        yield seen
        return
    norm = getattr(backbone, LAST_NORM, None)
    if norm is None:
        raise ModelError(
            f"model {type(backbone).__name__}: expected a last normalisation called '{LAST_NORM}' "
            "for stream.entropy=hidden, there is none; set stream.entropy=token"
        )
    hook = norm.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    try:
        yield seen
    finally:
        hook.remove()
