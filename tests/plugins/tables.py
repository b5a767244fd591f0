"""A network whose logits depend on the current token alone, so that every loss is a look-up."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch.nn.functional import one_hot

from models.chat import IGNORED, Encoded


class Table(torch.nn.Module):
    """A causal model of one layer: the output layer's columns are the logits behind each token."""

    device = torch.device("cpu")
    config = SimpleNamespace()

    def __init__(self, seed: int, vocabulary: int = 7):
        super().__init__()
        self.head = torch.nn.Linear(vocabulary, vocabulary, bias=False)
        drawn = torch.randn(vocabulary, vocabulary, generator=torch.Generator().manual_seed(seed))
        self.head.weight = torch.nn.Parameter(drawn.T.contiguous())

    @property
    def table(self) -> torch.Tensor:
        """(V, V): row t has the logits behind token t."""
        return self.head.weight.T

    def base_model(self, input_ids, attention_mask, use_cache):
        states = one_hot(input_ids, self.head.in_features).float()
        return SimpleNamespace(last_hidden_state=states)

    def get_output_embeddings(self) -> torch.nn.Module:
        return self.head


def example(ids: list[int], prompt: int) -> Encoded:
    """An example whose tokens behind the first ``prompt`` count."""
    return Encoded(ids, [IGNORED] * prompt + ids[prompt:])
