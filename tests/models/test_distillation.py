"""Reverse KL against torch and finite differences; the loss is CE plus its weighted mean."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from conf.errors import ModelError
from models.chat import IGNORED, Encoded, num_scored
from models.distillation import distilled, reverse_kl, teacher_logits
from models.training import collate

VOCABULARY = 7


class Table(torch.nn.Module):
    """Logits that depend on the current token alone."""

    device = torch.device("cpu")

    def __init__(self, seed: int):
        super().__init__()
        drawn = torch.randn(VOCABULARY, VOCABULARY, generator=torch.Generator().manual_seed(seed))
        self.table = torch.nn.Parameter(drawn)

    def forward(self, input_ids, attention_mask, logits_to_keep, use_cache):
        return SimpleNamespace(logits=self.table[input_ids][logits_to_keep])


def example(ids: list[int], prompt: int) -> Encoded:
    return Encoded(ids, [IGNORED] * prompt + ids[prompt:])


EXAMPLES = [example([1, 2, 3, 4], 2), example([2, 5, 6], 1), example([3, 3, 1, 1, 2], 3)]


def logits(seed: int, rows: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(rows, VOCABULARY, generator=generator, dtype=torch.float64)


def test_reverse_kl_is_torchs_kl_div_with_the_student_as_target():
    student, teacher = logits(1).float(), logits(2).float()
    expected = kl_div(
        log_softmax(teacher, -1), log_softmax(student, -1), log_target=True, reduction="batchmean"
    )
    torch.testing.assert_close(reverse_kl(student, teacher), expected)


def test_two_tokens_by_hand():
    student = torch.tensor([[0.0, 0.0]])
    teacher = torch.log(torch.tensor([[0.8, 0.2]]))
    # .5 ln(.5/.8) + .5 ln(.5/.2)
    assert reverse_kl(student, teacher).item() == pytest.approx(0.2231436, abs=1e-6)
    assert reverse_kl(teacher, teacher).item() == pytest.approx(0, abs=1e-7)


def test_its_gradient_is_that_of_finite_differences(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "float", lambda self: self)  # stay in float64
    student, teacher = logits(3).requires_grad_(), logits(4)
    assert torch.autograd.gradcheck(lambda each: reverse_kl(each, teacher), student)


def test_no_token_gives_zero_with_a_gradient():
    student = torch.zeros(0, VOCABULARY, requires_grad=True)
    loss = reverse_kl(student, torch.zeros(0, VOCABULARY))
    loss.backward()
    assert loss.item() == 0


def test_the_loss_is_cross_entropy_plus_the_weighted_mean_over_taught_tokens():
    student, teacher = Table(1), Table(2)
    rows = teacher_logits(teacher, EXAMPLES, pad_id=0, batch_size=2)
    chosen = [2, 0, 1]
    batch = collate([EXAMPLES[each] for each in chosen], 0)
    objective = distilled(EXAMPLES, {0: rows[0], 2: rows[2]}, weight=0.5)
    out = student.table[batch.input_ids][batch.scored]
    taught = torch.cat([out[:2], out[2:4]])  # two scored tokens each, examples 2 and 0
    expected = cross_entropy(out, batch.targets)
    expected += 0.5 * reverse_kl(taught, torch.cat([rows[2], rows[0]]))
    torch.testing.assert_close(objective(student, batch, chosen), expected)


def test_a_batch_without_taught_examples_is_cross_entropy():
    student = Table(1)
    batch = collate(EXAMPLES[1:2], 0)
    objective = distilled(EXAMPLES, {0: torch.zeros(2, VOCABULARY)}, weight=0.5)
    expected = cross_entropy(student.table[batch.input_ids][batch.scored], batch.targets)
    torch.testing.assert_close(objective(student, batch, [1]), expected)


def test_teacher_logits_are_float16_rows_of_the_scored_tokens():
    teacher = Table(5)
    rows = teacher_logits(teacher, EXAMPLES, pad_id=0, batch_size=2)
    assert [tuple(each.shape) for each in rows] == [(2, 7), (2, 7), (2, 7)]
    assert [num_scored(each) for each in EXAMPLES] == [2, 2, 2]
    torch.testing.assert_close(rows[1], teacher.table[[2, 5]].detach().half())


def test_rows_that_do_not_fit_the_scored_tokens_are_refused():
    with pytest.raises(ModelError, match=r"expected \(2, vocabulary\) for example 1, got \(3, 7\)"):
        distilled(EXAMPLES, {1: torch.zeros(3, VOCABULARY)}, weight=1)


def test_another_vocabulary_is_refused():
    objective = distilled(EXAMPLES, {0: torch.zeros(2, 9)}, weight=1)
    with pytest.raises(ModelError, match="one vocabulary"):
        objective(Table(1), collate(EXAMPLES[:1], 0), [0])
