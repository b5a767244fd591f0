"""Held-out loss is the mean over scored tokens, whatever the batches, and leaves the mode alone."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import cross_entropy

from models.chat import IGNORED, Encoded
from models.loss import mean_loss


class Table(torch.nn.Module):
    """Logits that depend on the current token alone."""

    device = torch.device("cpu")

    def __init__(self):
        super().__init__()
        self.table = torch.randn(7, 7, generator=torch.Generator().manual_seed(1))

    def forward(self, input_ids, attention_mask, logits_to_keep, use_cache):
        return SimpleNamespace(logits=self.table[input_ids][logits_to_keep])


EXAMPLES = [
    Encoded([1, 2, 3, 4], [IGNORED, IGNORED, 3, 4]),
    Encoded([2, 5, 6, 1, 1], [IGNORED, 5, 6, 1, 1]),
    Encoded([3, 3], [IGNORED, 3]),
]


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_every_scored_token_counts_once(batch_size):
    model = Table().train()
    steps = [(2, 3), (3, 4), (2, 5), (5, 6), (6, 1), (1, 1), (3, 3)]  # token and the next
    rows = model.table[[here for here, _ in steps]]
    expected = cross_entropy(rows, torch.tensor([following for _, following in steps]))
    assert mean_loss(model, EXAMPLES, 0, batch_size) == pytest.approx(expected.item(), rel=1e-6)
    assert model.training


def test_nothing_to_score_has_no_loss():
    assert mean_loss(Table(), [], 0, 4) is None
