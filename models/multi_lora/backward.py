"""The gradients of one step: its rows in micro-batches that fit, in smaller ones where they do not.

The gradient is that of the whole batch: each scored token weighs the same wherever it lies. Only
the dropout masks are drawn in another order.

Where memory runs out, the step is computed again from where it began, with the users' generators
as they stood, in micro-batches of half the size; the training goes on with these. So it ends as one
whose micro-batches had that size from this step on. Single rows that do not fit are checkpointed
(:mod:`.checkpointing`); where that is not enough, or not allowed, the training fails.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from models.batch import largest_part, micro_batches
from models.chat import IGNORED, Encoded, num_scored
from models.losses import TokenLosses, before_head, lesson_of, num_taught, weighted_loss
from models.multi_lora import packing
from models.multi_lora.checkpointing import Checkpoints
from models.multi_lora.stacked import Owners, Scope, Stack
from models.out_of_memory import Shrinking

_MULTIPLE = 32  # in bfloat16, oneDNN takes half a millisecond for a product of a new size
_FILLER = Encoded([0], [IGNORED])


@dataclass(frozen=True, slots=True)
class Step:
    """The users' next batches.

    Attributes:
        rows: Rows of each user.
        scored: Scored tokens of each user.
        shares: What the reverse KL of one taught token of each user weighs in its loss.
        generators: Each user's generator of dropout masks.
    """

    rows: list[list[Encoded]]
    scored: list[int]
    shares: list[float]
    generators: list[torch.Generator]

    @classmethod
    def of(
        cls,
        rows: list[list[Encoded]],
        distillation: Sequence[float],
        generators: list[torch.Generator],
    ) -> Step:
        """Count what the loss weighs; ``distillation`` is each user's weight of the reverse KL."""
        each = zip(distillation, rows, strict=True)
        shares = [weight / max(1, num_taught(own)) for weight, own in each]
        return cls(rows, [sum(map(num_scored, own)) for own in rows], shares, generators)


class Backward:
    """Brings the gradients of step after step."""

    def __init__(
        self,
        base: nn.Module,
        stack: Stack,
        most_tokens: int,
        checkpoints: Checkpoints,
        *,
        may_checkpoint: bool = True,
    ) -> None:
        self._base, self._stack = base, stack
        self._checkpoints, self._may_checkpoint = checkpoints, may_checkpoint
        self._shrinking = Shrinking(most_tokens, self._checkpoint)

    @property
    def reductions(self) -> int:
        """How often memory ran out and a step went on in a smaller way."""
        return self._shrinking.reductions

    def losses(self, step: Step) -> torch.Tensor:
        """Bring the gradients of a step; returns the users' (U,) mean losses per token.

        Raises:
            DoesNotFitError: If memory runs out and nothing can be made smaller.
        """
        begun = [generator.get_state() for generator in step.generators]

        def again() -> None:
            self._stack.forget()
            for generator, state in zip(step.generators, begun, strict=True):
                generator.set_state(state)

        return self._shrinking.compute(
            lambda: self._all_parts(step),
            lambda most_tokens: largest_part(step.rows, most_tokens),
            again,
            len(step.rows),
        )

    def _checkpoint(self) -> bool:
        """Take up checkpointing where it may and is not there yet; returns whether it did."""
        if not self._may_checkpoint or not self._checkpoints.blocks or self._checkpoints.active:
            return False
        self._checkpoints.active = True
        return True

    def _all_parts(self, step: Step) -> torch.Tensor:
        first, *further = micro_batches(step.rows, self._shrinking.most_tokens)
        total = self._part(step, first)
        if further:
            gradients = self._stack.gradients.clone()  # each backward pass writes over the last
            for part in further:
                total += self._part(step, part)
                gradients += self._stack.gradients
            self._stack.gradients.copy_(gradients)
        return total

    def _part(self, step: Step, rows: Sequence[Sequence[Encoded]]) -> torch.Tensor:
        """Bring the gradients of a part of the step's rows; returns the (U,) losses of this part.

        A user without rows takes part with a token that counts for nothing and draws no mask of its
        own.
        """
        stack, device = self._stack, self._stack.weights.device
        multiple = _MULTIPLE if stack.dtype == torch.bfloat16 else 1
        packed = packing.pack([own or [_FILLER] for own in rows], device, multiple)
        idle = torch.Generator(device)
        stack.scope = Scope(
            Owners.of(packed.sizes, device),
            Owners.of(packed.scored_sizes, device),
            packed.scored,
            tuple(own if part else idle for own, part in zip(step.generators, rows, strict=True)),
        )
        states, head = before_head(
            self._base,
            packed.scored,
            input_ids=packed.input_ids,
            position_ids=packed.position_ids,
            grid=packed.grid,
        )
        fillings = [size - n for size, n in zip(packed.scored_sizes, packed.counts, strict=True)]
        lesson = lesson_of(rows, fillings, step.shares, device)
        losses = weighted_loss(states, head, packed.targets, _weights(packed, step), lesson)
        losses.total.backward()
        return _per_user(losses, packed, step, [num_taught(own) for own in rows])


def _weights(packed: packing.Packed, step: Step) -> torch.Tensor:
    """Return (S,): a mean over each user's scored tokens of the step; filling weighs nothing."""
    device = packed.scored.device
    of, counts = (torch.tensor(each, device=device) for each in (step.scored, packed.counts))
    # a mean first, so that a whole batch has the bytes that it has without micro-batches
    each = torch.stack([counts / of / counts, torch.zeros_like(of, dtype=torch.float32)], 1)
    sizes = torch.tensor(packed.scored_sizes, device=device)
    return each.flatten().repeat_interleave(torch.stack([counts, sizes - counts], 1).flatten())


def _per_user(
    losses: TokenLosses, packed: packing.Packed, step: Step, taught: Sequence[int]
) -> torch.Tensor:
    """Return (U,), each user's part of its mean loss; not a number where nothing is scored."""
    parts = losses.cross_entropy.split(list(packed.scored_sizes))
    means = [
        part[:n].mean() * (n / of) if n else part.sum() * (0 if of else math.nan)
        for part, n, of in zip(parts, packed.counts, step.scored, strict=True)
    ]
    told = losses.reverse_kl.split(list(taught))
    kl = [each.sum() * share for each, share in zip(told, step.shares, strict=True)]
    return torch.stack(means) + torch.stack(kl) if any(taught) else torch.stack(means)
