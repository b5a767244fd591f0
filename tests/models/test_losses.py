"""Losses in chunks are the plain ones on all logits, in value and gradient."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy, kl_div, log_softmax
from transformers import Gemma2Config, Gemma2ForCausalLM, GraniteConfig, GraniteForCausalLM

from models import losses
from models.batch import collate
from models.distillation import truncated
from models.losses import (
    Lesson,
    Taught,
    batch_loss,
    before_head,
    chunk_rows,
    example_losses,
    mean_loss,
    num_taught,
    reverse_kl,
    token_losses,
    weighted_loss,
)
from tests.plugins.tables import Table, example

VOCABULARY, WIDTH, TOKENS = 300, 24, 100
EXAMPLES = [example([1, 2, 3, 4], 2), example([2, 5, 6, 1, 1], 1), example([3, 3], 1)]
SCORED = [(2, 3), (3, 4), (2, 5), (5, 6), (6, 1), (1, 1), (3, 3)]  # token and the next


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def chunked(monkeypatch):
    """At most 32 tokens' logits at once: 100 tokens take four chunks, the last of four."""
    monkeypatch.setattr(losses, "CHUNK_NUMBERS", 32 * VOCABULARY)


@pytest.fixture
def head() -> torch.nn.Linear:
    made = torch.nn.Linear(WIDTH, VOCABULARY, bias=False)
    made.weight = torch.nn.Parameter(drawn(1, VOCABULARY, WIDTH))
    return made


def lesson(kind: str) -> Lesson | None:
    """Every third token is taught; a chunk has some, none or all of them."""
    if kind == "none":
        return None
    at = torch.tensor([*range(0, 60, 3), *range(96, 100)])
    logits = 3 * drawn(4, len(at), VOCABULARY)
    teacher = truncated(logits, top=20) if kind == "truncated" else logits
    return Lesson(at, teacher, 0.5 + drawn(5, len(at)).abs())


TARGETS = torch.arange(TOKENS) * 7 % VOCABULARY
WEIGHTS = drawn(3, TOKENS).abs()


def plain(states, head, lesson):
    """The same loss on all logits at once, by autograd alone."""
    logits = head(states).float()
    each = cross_entropy(logits, TARGETS, reduction="none")
    total = (each * WEIGHTS).sum()
    if lesson is None:
        return total, each
    return total + (reverse_kl(logits[lesson.at], lesson.teacher) * lesson.weights).sum(), each


@pytest.mark.parametrize("kind", ["none", "exact", "truncated"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("trained", [True, False])
def test_chunks_change_neither_loss_nor_gradient(chunked, head, kind, dtype, tolerance, trained):
    head = head.to(dtype).requires_grad_(trained)
    states = drawn(2, TOKENS, WIDTH).to(dtype).requires_grad_()
    wanted = [states, head.weight] if trained else [states]
    total, each = plain(states, head, lesson(kind))
    expected = torch.autograd.grad(total, wanted)
    found = weighted_loss(states, head, TARGETS, WEIGHTS, lesson(kind))
    got = torch.autograd.grad(3 * found.total, wanted)
    torch.testing.assert_close(found.total, total, rtol=tolerance, atol=0)
    torch.testing.assert_close(found.cross_entropy, each.detach(), rtol=tolerance, atol=tolerance)
    for one, other in zip(got, expected, strict=True):
        scale = other.abs().max().item()
        torch.testing.assert_close(one, 3 * other, rtol=0, atol=3 * tolerance * scale)


def test_one_chunk_has_the_bytes_of_the_plain_loss(head):
    states = drawn(2, TOKENS, WIDTH).requires_grad_()
    total, each = plain(states, head.requires_grad_(False), None)
    (expected,) = torch.autograd.grad(total, states)
    found = weighted_loss(states, head, TARGETS, WEIGHTS)
    assert torch.equal(found.cross_entropy, each)
    assert torch.equal(torch.autograd.grad(found.total, states)[0], expected)


def test_no_more_logits_than_a_chunks_ever_exist(chunked, head):
    seen = []
    head.register_forward_hook(lambda _module, _inputs, output: seen.append(output.numel()))
    states = drawn(2, TOKENS, WIDTH).requires_grad_()
    weighted_loss(states, head, TARGETS, WEIGHTS).total.backward()
    token_losses(states, head, TARGETS)
    assert sum(seen) == 2 * TOKENS * VOCABULARY
    assert max(seen) == chunk_rows(states, head) * VOCABULARY == 32 * VOCABULARY


def test_a_chunk_at_the_papers_vocabulary_is_64_mib():
    wide = torch.nn.Linear(1, 151_936, bias=False, device="meta")
    rows = chunk_rows(torch.zeros(1, 1), wide)
    assert rows == 96
    assert rows * 151_936 * 4 <= 64 << 20


def test_losses_without_a_gradient_are_the_same(chunked, head):
    states = drawn(2, TOKENS, WIDTH)
    each = token_losses(states, head, TARGETS)
    torch.testing.assert_close(each, plain(states, head, None)[1], rtol=1e-6, atol=1e-6)
    assert not each.requires_grad
    assert token_losses(states[:0], head, TARGETS[:0]).shape == (0,)


def test_no_token_gives_zero_with_a_gradient(head):
    states = torch.zeros(0, WIDTH, requires_grad=True)
    found = weighted_loss(states, head, TARGETS[:0], WEIGHTS[:0])
    found.total.backward()
    assert found.total.item() == 0
    assert states.grad.shape == (0, WIDTH)


SIZES = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
}


@pytest.mark.parametrize(
    "model",
    [
        lambda: GraniteForCausalLM(GraniteConfig(**SIZES, logits_scaling=8.0)),
        lambda: Gemma2ForCausalLM(Gemma2Config(**SIZES, final_logit_softcapping=2.0)),
    ],
)
def test_what_a_network_does_to_its_logits_is_part_of_the_loss(model):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = model().eval()
    batch = collate(EXAMPLES, 0)
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    with torch.no_grad():
        logits = network(**inputs).logits[batch.scored]
        states, head = before_head(network, batch.scored, **inputs)
        torch.testing.assert_close(head(states), logits)
    expected = cross_entropy(logits, batch.targets)
    torch.testing.assert_close(batch_loss(network, EXAMPLES, 0).total.detach(), expected)


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_every_scored_token_counts_once_whatever_the_batches(batch_size):
    model = Table(1).train()
    rows = model.table[[here for here, _ in SCORED]]
    expected = cross_entropy(rows, torch.tensor([following for _, following in SCORED]))
    assert mean_loss(model, EXAMPLES, 0, batch_size) == pytest.approx(expected.item(), rel=1e-6)
    assert model.training


def test_each_examples_loss_is_the_sum_over_its_own_tokens():
    model = Table(1)
    each = cross_entropy(
        model.table[[here for here, _ in SCORED]],
        torch.tensor([following for _, following in SCORED]),
        reduction="none",
    )
    expected = [part.sum().item() for part in each.split([2, 4, 1])]
    assert example_losses(model, EXAMPLES, 0, 2) == pytest.approx(expected, rel=1e-6)


def test_nothing_to_score_has_no_loss():
    assert mean_loss(Table(1), [], 0, 4) is None


def test_reverse_kl_is_torchs_kl_div_with_the_student_as_target():
    student, teacher = 3 * drawn(1, 5, 7), 3 * drawn(2, 5, 7)
    expected = kl_div(
        log_softmax(teacher, -1), log_softmax(student, -1), log_target=True, reduction="none"
    ).sum(-1)
    torch.testing.assert_close(reverse_kl(student, teacher), expected)


def test_two_tokens_by_hand():
    student = torch.tensor([[0.0, 0.0]])
    teacher = torch.log(torch.tensor([[0.8, 0.2]]))
    # .5 ln(.5/.8) + .5 ln(.5/.2)
    assert reverse_kl(student, teacher).item() == pytest.approx(0.2231436, abs=1e-6)
    assert reverse_kl(teacher, teacher).item() == pytest.approx(0, abs=1e-7)


def test_its_gradient_is_that_of_finite_differences(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "float", lambda self: self)  # stay in float64
    student, teacher = 3 * drawn(3, 5, 7).double().requires_grad_(), 3 * drawn(4, 5, 7).double()
    assert torch.autograd.gradcheck(lambda each: reverse_kl(each, teacher), student)
    short = truncated(teacher, top=3)
    assert torch.autograd.gradcheck(lambda each: reverse_kl(each, short), student)


def test_a_batchs_loss_is_cross_entropy_plus_the_weighted_mean_over_taught_tokens():
    student, teacher = Table(1), Table(2)
    said = [teacher.table[[2, 3]].detach(), teacher.table[[3]].detach()]
    taught = [
        Taught(one.input_ids, one.labels, teacher=rows)
        for one, rows in zip((EXAMPLES[0], EXAMPLES[2]), said, strict=True)
    ]
    batch = [taught[1], EXAMPLES[1], taught[0]]
    out = student.table[[3, 2, 5, 6, 1, 2, 3]]
    targets = torch.tensor([3, 5, 6, 1, 1, 3, 4])
    expected = cross_entropy(out, targets)
    expected += 0.5 * reverse_kl(out[[0, 5, 6]], torch.cat([said[1], said[0]])).mean()
    found = batch_loss(student, batch, 0, distillation=0.5)
    assert num_taught(batch) == 3
    torch.testing.assert_close(found.total, expected)
    torch.testing.assert_close(found.loss(0.5), expected.detach())
