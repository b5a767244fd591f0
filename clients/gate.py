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


def make_folds(job: CohortJob, records: Sequence[Sequence[int]], number: int) -> tuple[Fold, ...]:
    """Part a training into folds; fewer where D_u has fewer records, none for a single one.

    Args:
        job: The whole training.
        records: Per record of D_u the places of its examples: its own first, then those that were
            made from it.
        number: Folds.

    Returns:
        The folds. Each trains with the whole training's steps, lessened as its examples are.
    """
    drawn = list(records)
    random.Random(derive_seed(job.batch_seed, "folds")).shuffle(drawn)
    parts = [drawn[first::number] for first in range(min(number, len(drawn)))]
    return tuple(_fold(job, part) for part in parts) if len(parts) > 1 else ()


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


def _fold(job: CohortJob, part: Sequence[Sequence[int]]) -> Fold:
    left_out = {place for record in part for place in record}
    kept = [each for place, each in enumerate(job.examples) if place not in left_out]
    held_out = [job.examples[place] for place in sorted(record[0] for record in part)]
    whole, size = len(job.examples), job.schedule.batch_size
    epochs = job.schedule.steps / max(1, steps_for(whole, size, 1))
    steps = max(1, round(epochs * steps_for(len(kept), size, 1)))
    return Fold(
        replace(job, examples=kept, schedule=replace(job.schedule, steps=steps)),
        tuple(each for each in held_out if num_scored(each)),
    )


def _loss(base: Base, fold: Fold) -> float:
    """Summed over the scored tokens: every token of D_u weighs the same, whatever its fold."""
    return sum(example_losses(base.model, fold.held_out, base.tokenizer.pad_token_id, BATCH))
