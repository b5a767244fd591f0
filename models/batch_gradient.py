"""The gradient of one batch of a plain network, in micro-batches where memory wants them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from models.batch import largest_part, micro_batches
from models.chat import Encoded
from models.losses import TokenLosses, batch_loss
from models.out_of_memory import Shrinking

Gradients = tuple[torch.Tensor, ...]


class BatchGradient:
    """Takes the gradients of batches; begins with whole ones and shrinks as the engine does.

    A bfloat16 base computes under autocast, so float32 adapter weights keep their precision while
    their products run in the compute type; a float32 base computes in float32 throughout.
    """

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        trained: Sequence[torch.Tensor],
        pad_id: int,
        distillation: float = 0.0,
    ) -> None:
        """Prepare.

        Args:
            model: Causal model, in the mode in which it trains.
            trained: Parameters that the gradients are of.
            pad_id: Id that fills short rows.
            distillation: Weight of the reverse KL of examples that have a teacher.
        """
        self._model, self._trained = model, list(trained)
        self._pad_id, self._distillation = pad_id, distillation
        self._shrinking = Shrinking(sys.maxsize)

    @property
    def reductions(self) -> int:
        """How often memory ran out and a batch went on in smaller micro-batches."""
        return self._shrinking.reductions

    def of(self, rows: Sequence[Encoded]) -> tuple[Gradients, TokenLosses]:
        """Return the gradients of the mean loss over the scored tokens of ``rows``, and the losses.

        Raises:
            DoesNotFitError: If memory runs out with single rows.
        """
        return self._shrinking.compute(
            lambda: self._in_parts(rows),
            lambda most_tokens: largest_part([rows], most_tokens),
            _back_to_now(self._model.device),
        )

    def _in_parts(self, rows: Sequence[Encoded]) -> tuple[Gradients, TokenLosses]:
        parts = [part for (part,) in micro_batches([rows], self._shrinking.most_tokens)]
        gradients, losses = self._part(parts[0], rows)
        found = [losses]
        for part in parts[1:]:
            more, losses = self._part(part, rows)
            found.append(losses)
            for gradient, own in zip(gradients, more, strict=True):
                gradient += own
        return gradients, TokenLosses.joined(found)

    def _part(
        self, part: Sequence[Encoded], whole: Sequence[Encoded]
    ) -> tuple[Gradients, TokenLosses]:
        model = self._model
        mixed = model.dtype == torch.bfloat16
        with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=mixed):
            losses = batch_loss(model, part, self._pad_id, self._distillation, whole)
        return torch.autograd.grad(losses.total, self._trained), losses


def _back_to_now(device: torch.device) -> Callable[[], None]:
    """Return what brings the generators of dropout back to where they stand now."""
    state = torch.get_rng_state()
    on_gpu = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    def back() -> None:
        torch.set_rng_state(state)
        if on_gpu is not None:
            torch.cuda.set_rng_state(on_gpu, device)

    return back
