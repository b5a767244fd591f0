"""Whether a user's adapter is used at all: the device decides it by cross-validation within D_u.

Each record of D_u is held out once while an adapter is trained on the others and on what was made
from these; the held-out records' loss with it is set against that of M_base alone. Only where the
adapters win does the user keep one, trained on everything; else M_base answers. A device so decides
whether personalisation helps its user without a query of theirs (after Wang et al.,
arXiv 1910.10252, who decide on held-out records of the device).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from clients.base import Base
from conf.seeds import derive_seed
from models import lora
from models.chat import Encoded, num_scored
from models.losses import example_losses
from models.multi_lora.cohort import CohortJob
from models.training import steps_for

BATCH = 8  # records whose loss is taken at once


@dataclass(frozen=True, slots=True)
class Fold:
    """One part of the cross-validation.

    Attributes:
        job: Training without the held-out records and without what was made from them.
        held_out: These records.
    """

    job: CohortJob
    held_out: tuple[Encoded, ...]


def make_folds(job: CohortJob, sources: Sequence[int | None], number: int) -> tuple[Fold, ...]:
    """Part a training into folds; fewer where D_u has fewer records, none for a single one.

    Args:
        job: The whole training, the records of D_u first.
        sources: Per example the place of the record of D_u that it was made from, a record's own
            place for itself; None for what was made from none.
        number: Folds.

    Returns:
        The folds. Each trains with the whole training's steps, lessened as its examples are.
    """
    own = [place for place, source in enumerate(sources) if source == place]
    random.Random(derive_seed(job.batch_seed, "folds")).shuffle(own)
    parts = [frozenset(own[first::number]) for first in range(min(number, len(own)))]
    return tuple(_fold(job, sources, part) for part in parts) if len(parts) > 1 else ()


def is_better(
    base: Base, folds: Sequence[Fold], states: Sequence[Mapping[str, torch.Tensor]]
) -> bool:
    """Whether the folds' adapters have a smaller loss on what they did not see than M_base alone.

    Args:
        base: Base model; its slot is filled.
        folds: Of :func:`make_folds`.
        states: The adapter of each fold.
    """
    adapted = alone = 0.0
    for fold, state in zip(folds, states, strict=True):
        lora.fill(base.model, state, "of a fold")
        adapted += _loss(base, fold)
        with lora.disabled(base.model):
            alone += _loss(base, fold)
    return adapted < alone


def nothing(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The adapter of those shapes that changes no answer."""
    return {name: torch.zeros_like(weight) for name, weight in state.items()}


def _fold(job: CohortJob, sources: Sequence[int | None], part: frozenset[int]) -> Fold:
    kept = [place for place, source in enumerate(sources) if source not in part]
    whole, size = len(job.examples), job.schedule.batch_size
    epochs = job.schedule.steps / max(1, steps_for(whole, size, 1))
    steps = max(1, round(epochs * steps_for(len(kept), size, 1)))
    return Fold(
        replace(
            job,
            examples=[job.examples[place] for place in kept],
            schedule=replace(job.schedule, steps=steps),
        ),
        tuple(job.examples[place] for place in sorted(part) if num_scored(job.examples[place])),
    )


def _loss(base: Base, fold: Fold) -> float:
    """Summed over the scored tokens: every token of D_u weighs the same, whatever its fold."""
    return sum(example_losses(base.model, fold.held_out, base.tokenizer.pad_token_id, BATCH))
