"""The teacher's truncated form: exact where it is small, close where it is not, refused if odd."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import log_softmax

from conf.errors import ModelError
from models import distillation
from models.chat import num_scored
from models.distillation import EXACT_VOCABULARY, TOP, taught, teacher_logits, truncated
from models.losses import Taught, reverse_kl
from tests.plugins.tables import Table, example

VOCABULARY = 7
EXAMPLES = [example([1, 2, 3, 4], 2), example([2, 5, 6], 1), example([3, 3, 1, 1, 2], 3)]


def peaked(seed: int, rows: int, width: int, spread: float = 4.0) -> torch.Tensor:
    """Logits that fall with the rank, as a language model's do."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(rows, width, generator=generator)
    fall = spread * torch.log1p(torch.arange(width, dtype=torch.float32))
    order = torch.stack([torch.randperm(width, generator=generator) for _ in range(rows)])
    return (noise - fall).gather(1, order)


def test_it_names_the_most_likely_tokens_and_the_others_mass():
    logits = torch.log(torch.tensor([[0.1, 0.4, 0.05, 0.3, 0.15]]))
    found = truncated(logits, top=2)
    assert found.dtype == torch.float32
    assert found[0, :, 0].tolist() == [1, 3, -1]
    torch.testing.assert_close(found[0, :, 1].exp(), torch.tensor([0.4, 0.3, 0.3]))


def test_a_remainder_of_one_token_loses_nothing():
    student, teacher = peaked(1, 40, 9), peaked(2, 40, 9)
    torch.testing.assert_close(
        reverse_kl(student, truncated(teacher, 8)), reverse_kl(student, teacher)
    )


def test_what_it_loses_is_the_students_remainder_times_the_divergence_within():
    student, teacher = peaked(3, 50, 500), peaked(4, 50, 500)
    short = truncated(teacher, 16)
    lost = reverse_kl(student, teacher) - reverse_kl(student, short)
    inside = torch.zeros(50, 500, dtype=torch.bool).scatter(1, short[:, :-1, 0].long(), True)
    rest = student.masked_fill(inside, -torch.inf), teacher.masked_fill(inside, -torch.inf)
    own, others = (log_softmax(each, -1).masked_fill(inside, 0) for each in rest)
    within = (own.exp() * (own - others)).masked_fill(inside, 0).sum(-1)
    mass = log_softmax(student, -1).exp().masked_fill(inside, 0).sum(-1)
    torch.testing.assert_close(lost, mass * within, rtol=1e-4, atol=1e-5)
    assert (lost >= -1e-5).all()


@pytest.mark.parametrize(("mixed", "loss", "gradient"), [(0.0, 1e-3, 1e-3), (0.5, 1e-3, 2e-2)])
def test_loss_and_gradient_are_close_to_the_full_ones_at_a_large_vocabulary(mixed, loss, gradient):
    """Relative, of the mean over tokens, where a student is as near as ``mixed`` of another."""
    teacher = peaked(5, 12, 20_000)
    student = teacher + mixed * torch.randn(12, 20_000, generator=torch.Generator().manual_seed(6))
    found = []
    for said in (teacher, truncated(teacher)):
        own = student.clone().requires_grad_()
        value = reverse_kl(own, said).mean()
        (slope,) = torch.autograd.grad(value, own)
        found.append((value.item(), slope))
    (full, full_slope), (short, short_slope) = found
    assert short == pytest.approx(full, rel=loss, abs=1e-6)
    assert (short_slope - full_slope).norm() <= gradient * full_slope.norm() + 1e-6


def test_teacher_logits_are_float16_rows_of_the_scored_tokens():
    teacher = Table(5)
    rows = teacher_logits(teacher, EXAMPLES, pad_id=0, batch_size=2)
    assert [tuple(each.shape) for each in rows] == [(2, 7), (2, 7), (2, 7)]
    assert [num_scored(each) for each in EXAMPLES] == [2, 2, 2]
    torch.testing.assert_close(rows[1], teacher.table[[2, 5]].detach().half())


def test_above_a_vocabulary_they_are_truncated(monkeypatch):
    wide = Table(5, vocabulary=EXACT_VOCABULARY + 1)
    (rows, *_) = teacher_logits(wide, EXAMPLES[:1], pad_id=0, batch_size=2)
    assert tuple(rows.shape) == (2, TOP + 1, 2)
    torch.testing.assert_close(rows, truncated(wide.table[[2, 3]].detach()))
    monkeypatch.setattr(distillation, "EXACT_VOCABULARY", EXACT_VOCABULARY + 1)
    assert teacher_logits(wide, EXAMPLES[:1], 0, 2)[0].shape == (2, EXACT_VOCABULARY + 1)


def test_a_token_of_the_papers_vocabulary_takes_two_kib_not_three_hundred():
    """100 users of 60 records of 40 scored tokens: 471 MiB travel, 68 GiB would."""
    per_token = truncated(torch.zeros(1, 1000)).nbytes
    assert per_token == (TOP + 1) * 2 * 4 == 2056
    records = 100 * 60 * 40
    assert records * per_token < 471 << 20 < 1 << 30
    assert records * 151_936 * 2 > 67 << 30


def test_taught_examples_keep_their_tokens():
    rows = teacher_logits(Table(2), EXAMPLES, pad_id=0, batch_size=2)
    made = taught(EXAMPLES, {0: rows[0], 2: rows[2]}, VOCABULARY)
    assert [isinstance(each, Taught) for each in made] == [True, False, True]
    assert [each.input_ids for each in made] == [each.input_ids for each in EXAMPLES]
    assert made[1] is EXAMPLES[1]


def broken(rows: torch.Tensor, place: tuple[int, ...], value: float) -> torch.Tensor:
    made = rows.clone()
    made[place] = value
    return made


SHORT = truncated(torch.zeros(2, VOCABULARY), top=3)


@pytest.mark.parametrize(
    "rows",
    [
        torch.zeros(3, VOCABULARY),
        torch.zeros(2, VOCABULARY + 2),
        torch.zeros(2),
        broken(SHORT, (0, 0, 0), VOCABULARY),
        broken(SHORT, (0, 0, 0), -1),
        broken(SHORT, (1, 2, 1), torch.nan),
        torch.zeros(2, 4, 3),
        torch.zeros(2, 0, 2),
    ],
)
def test_what_does_not_fit_the_students_tokens_or_vocabulary_is_refused(rows):
    with pytest.raises(ModelError, match="teacher logits: expected"):
        taught(EXAMPLES, {0: rows}, VOCABULARY)
