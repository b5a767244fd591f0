"""The losses of language models: cross-entropy on scored tokens, and a teacher's reverse KL.

    L = CE(scored tokens) + weight * 1/|M| sum_{t in M} sum_v p_S(v) [log p_S(v) - log p_T(v)]

M are the scored tokens of the batch's taught examples. The texts are given, not sampled from the
student, so this is the off-policy form (as in TRL's GKD with beta 1 and lambda 0), not MiniLLM
proper. Teacher and student must have the same vocabulary.

The output layer sees scored tokens only, and a chunk of them at a time: the gradient with respect
to a chunk's hidden states is taken at once and its logits are dropped, so that no more than
``CHUNK_NUMBERS`` logits ever exist. It is the plain loss on all logits in another order of work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from torch.nn.functional import cross_entropy, log_softmax
from transformers import PreTrainedModel

from models.batch import Batch, collate
from models.chat import Encoded, num_scored

CHUNK_NUMBERS = 1 << 24  # logits that exist at once: 64 MiB in float32
_MULTIPLE = 32  # rows of a chunk; products of odd sizes are slow in bfloat16
# settings of networks that change logits behind the output layer (Gemma, Granite, Cohere, Falcon)
_BEHIND_HEAD = (
    "final_logit_softcapping", "logits_scaling", "logit_scale", "lm_head_multiplier",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Taught(Encoded):
    """A training example with what a teacher says of its scored tokens.

    Attributes:
        teacher: (S, V) logits, or the truncated form of :func:`models.distillation.truncated`.
    """

    teacher: torch.Tensor


@dataclass(frozen=True, slots=True)
class Lesson:
    """What the teacher says of M of S scored tokens.

    Attributes:
        at: (M,) int64, which of the scored tokens, ascending.
        teacher: (M, V) logits or (M, k + 1, 2), the truncated form.
        weights: (M,) float32, what each token's reverse KL weighs in the loss.
    """

    at: torch.Tensor
    teacher: torch.Tensor
    weights: torch.Tensor


@dataclass(frozen=True, slots=True)
class TokenLosses:
    """The losses of S scored tokens.

    Attributes:
        total: Scalar, the weighted sum of all parts; the only one with a gradient.
        cross_entropy: (S,) float32, nats.
        reverse_kl: (M,) float32, nats, of the tokens of a lesson.
    """

    total: torch.Tensor
    cross_entropy: torch.Tensor
    reverse_kl: torch.Tensor

    @classmethod
    def joined(cls, parts: Sequence[TokenLosses]) -> TokenLosses:
        """Return the losses of a batch from those of its parts; the total has no gradient."""
        return cls(
            torch.stack([part.total.detach() for part in parts]).sum(),
            torch.cat([part.cross_entropy for part in parts]),
            torch.cat([part.reverse_kl for part in parts]),
        )

    def loss(self, distillation: float) -> torch.Tensor:
        """Return the loss of the module's head line over all tokens, without a gradient."""
        loss = self.cross_entropy.mean()
        return loss + distillation * self.reverse_kl.mean() if len(self.reverse_kl) else loss


def weighted_loss(
    states: torch.Tensor,
    head: nn.Module,
    targets: torch.Tensor,
    weights: torch.Tensor,
    lesson: Lesson | None = None,
) -> TokenLosses:
    """Return the losses at scored tokens, with a gradient for ``states`` and ``head``.

    Args:
        states: (S, H) what the output layer reads.
        head: The output layer.
        targets: (S,) int64, the tokens that follow.
        weights: (S,) float32, what each token's cross-entropy weighs in the total.
        lesson: What a teacher says of some of the tokens.
    """

    def part(rows: torch.Tensor, start: int, end: int) -> tuple[torch.Tensor, ...]:
        logits = head(rows).float()
        losses = cross_entropy(logits, targets[start:end], reduction="none")
        total = (losses * weights[start:end]).sum()
        if lesson is None:
            return total, losses, losses[:0]
        inside = (lesson.at >= start) & (lesson.at < end)
        divergence = reverse_kl(logits[lesson.at[inside] - start], lesson.teacher[inside])
        return total + (divergence * lesson.weights[inside]).sum(), losses, divergence

    trained = [weight for weight in head.parameters() if weight.requires_grad]
    total, losses, divergence = _InChunks.apply(states, part, chunk_rows(states, head), *trained)  # type: ignore[no-untyped-call]
    return TokenLosses(total, losses, divergence)


def reverse_kl(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Return each token's KL(student || teacher), in nats.

    Of a truncated teacher it is the divergence of the distributions over its k tokens and "any
    other": at most the full one, which has the student's remaining mass times the divergence within
    the remainder on top.

    Args:
        student: (M, V) logits.
        teacher: (M, V) logits, or (M, k + 1, 2) in the truncated form.
    """
    log_student = log_softmax(student.float(), dim=-1)
    if teacher.ndim == 2:
        log_teacher = log_softmax(teacher.float(), dim=-1)
    else:
        tokens, log_teacher = teacher[:, :-1, 0].long(), teacher[..., 1].float()
        rest = log_student.scatter(-1, tokens, -torch.inf).logsumexp(-1, keepdim=True)
        log_student = torch.cat([log_student.gather(-1, tokens), rest], dim=-1)
    return (log_student.exp() * (log_student - log_teacher)).sum(dim=-1)


@torch.no_grad()
def token_losses(states: torch.Tensor, head: nn.Module, targets: torch.Tensor) -> torch.Tensor:
    """Return the (S,) float32 cross-entropy of each token, in nats; no gradient.

    Args:
        states: (S, H) what the output layer reads.
        head: The output layer.
        targets: (S,) int64, the tokens that follow.
    """
    size = chunk_rows(states, head)
    parts = []
    for start in range(0, max(1, len(states)), size):
        logits = head(states[start : start + size]).float()
        parts.append(cross_entropy(logits, targets[start : start + size], reduction="none"))
    return torch.cat(parts)


def before_head(
    model: PreTrainedModel | PeftModel | nn.Module, scored: torch.Tensor, **inputs: Any
) -> tuple[torch.Tensor, nn.Module]:
    """Return (S, H) states of the scored tokens, and the output layer that reads them.

    Of a network that changes its logits behind the output layer, these are the states and the layer
    leaves them as they are.

    Args:
        model: Causal model, with or without an adapter slot.
        scored: (B, T) bool, or (S,) int64 places in a batch of one row.
        inputs: What the model is called with.
    """
    causal: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    if any(getattr(causal.config, name, None) not in (None, 1) for name in _BEHIND_HEAD):
        logits = causal(**inputs, use_cache=False).logits
        return _chosen(logits, scored), nn.Identity()
    states = causal.base_model(**inputs, use_cache=False).last_hidden_state
    return _chosen(states, scored), causal.get_output_embeddings()


def batch_loss(
    model: PreTrainedModel | PeftModel,
    examples: Sequence[Encoded],
    pad_id: int,
    distillation: float = 0.0,
    whole: Sequence[Encoded] | None = None,
) -> TokenLosses:
    """Return the losses of a batch whose scored tokens weigh alike.

    Args:
        model: Causal model.
        examples: The batch, or a part of it.
        pad_id: Id that fills short rows.
        distillation: Weight of the reverse KL of those examples that are :class:`Taught`.
        whole: The batch that the examples are a part of; the totals of all its parts add up to that
            of the whole. None where they are all of it.
    """
    batch, whole = collate(examples, pad_id, model.device), whole or examples
    states, head = _states(model, batch)
    each = 1 / max(1, sum(map(num_scored, whole)))
    weights = torch.full((len(states),), each, device=states.device)
    share = distillation / max(1, num_taught(whole))
    lesson = lesson_of([examples], [0], [share], states.device)
    return weighted_loss(states, head, batch.targets, weights, lesson)


def num_taught(examples: Sequence[Encoded]) -> int:
    """Number of tokens of the examples that a teacher speaks of."""
    return sum(len(example.teacher) for example in examples if isinstance(example, Taught))


def lesson_of(
    users: Sequence[Sequence[Encoded]],
    fillings: Sequence[int],
    shares: Sequence[float],
    device: torch.device,
) -> Lesson | None:
    """Collect what the teachers say of the scored tokens of several users' rows.

    Args:
        users: Rows of each user, whose scored tokens stand one after the other.
        fillings: How many tokens that count for nothing stand behind each user's.
        shares: What the reverse KL of one token of each user weighs in the loss.
        device: Where the tensors go.

    Returns:
        None where no row is taught.
    """
    at, teacher, weights, place = list[int](), list[torch.Tensor](), list[float](), 0
    for rows, filling, share in zip(users, fillings, shares, strict=True):
        for row in rows:
            end = place + num_scored(row)
            if isinstance(row, Taught):
                at += range(place, end)
                weights += [share] * (end - place)
                teacher.append(row.teacher)
            place = end
        place += filling
    if not at:
        return None
    return Lesson(
        torch.tensor(at, device=device),
        torch.cat(teacher).to(device),
        torch.tensor(weights, device=device),
    )


@torch.inference_mode()
def mean_loss(
    model: PreTrainedModel | PeftModel, examples: Sequence[Encoded], pad_id: int, batch_size: int
) -> float | None:
    """Return the mean cross-entropy per scored token without dropout, in nats.

    None without a scored token. The model's mode is left as it was.
    """
    was_training = model.training
    losses = example_losses(model, examples, pad_id, batch_size)
    model.train(was_training)
    tokens = sum(map(num_scored, examples))
    return sum(losses) / tokens if tokens else None


@torch.inference_mode()
def example_losses(
    model: PreTrainedModel | PeftModel, examples: Sequence[Encoded], pad_id: int, batch_size: int
) -> list[float]:
    """Return each example's cross-entropy, summed over its scored tokens, in nats.

    Examples of similar length share a batch; the losses come in the order of the examples. The
    model is left in eval mode.
    """
    order = sorted(range(len(examples)), key=lambda index: len(examples[index].input_ids))
    losses = [0.0] * len(examples)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = collate([examples[index] for index in chosen], pad_id, model.device)
        each = token_losses(*_states(model.eval(), batch), batch.targets)
        rows = each.cpu().split(batch.scored.sum(dim=1).tolist())
        for index, row in zip(chosen, rows, strict=True):
            losses[index] = float(row.double().sum())
    return losses


def _states(model: PreTrainedModel | PeftModel, batch: Batch) -> tuple[torch.Tensor, nn.Module]:
    return before_head(
        model, batch.scored, input_ids=batch.input_ids, attention_mask=batch.attention_mask
    )


def _chosen(states: torch.Tensor, scored: torch.Tensor) -> torch.Tensor:
    return states[scored] if scored.dtype == torch.bool else states[:, scored].squeeze(0)


def chunk_rows(states: torch.Tensor, head: nn.Module) -> int:
    """Return how many tokens' logits exist at once."""
    return chunk_tokens(int(getattr(head, "out_features", states.shape[-1])))


def chunk_tokens(vocabulary: int) -> int:
    """Return how many tokens' logits exist at once, of a vocabulary."""
    return max(_MULTIPLE, CHUNK_NUMBERS // vocabulary // _MULTIPLE * _MULTIPLE)


class _InChunks(torch.autograd.Function):
    """(S, H) states to a loss, chunk by chunk, with the gradients taken on the way."""

    @staticmethod
    def forward(
        ctx: Any,
        states: torch.Tensor,
        part: Callable[[torch.Tensor, int, int], tuple[torch.Tensor, ...]],
        size: int,
        *trained: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """``part`` makes of the tokens from start to end the total and what else is wanted."""
        gradients = [torch.empty_like(states), *map(torch.zeros_like, trained)]
        found = []
        for start in range(0, max(1, len(states)), size):
            with torch.enable_grad():
                rows = states[start : start + size].detach().requires_grad_()
                made = part(rows, start, start + size)
            own, *others = torch.autograd.grad(made[0], [rows, *trained])
            gradients[0][start : start + size] = own
            for gradient, more in zip(gradients[1:], others, strict=True):
                gradient += more
            found.append([value.detach() for value in made])
        totals, losses, divergence = zip(*found, strict=True)
        results = torch.stack(totals).sum(), torch.cat(losses), torch.cat(divergence)
        ctx.save_for_backward(*gradients)
        ctx.mark_non_differentiable(*results[1:])
        return results

    @staticmethod
    def backward(ctx: Any, *outer: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Scale what was taken on the way."""
        states, *trained = (
            gradient * outer[0].to(gradient.dtype) for gradient in ctx.saved_tensors
        )
        return states, None, None, *trained
