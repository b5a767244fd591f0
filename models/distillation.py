"""Reverse-KL distillation: cross-entropy on D_u plus the student's divergence from a teacher.

    L = CE(batch) + weight * 1/|M| sum_{t in M} sum_v p_S(v) [log p_S(v) - log p_T(v)]

M are the scored tokens of the batch's taught examples. The texts are given, not sampled from the
student, so this is the off-policy form (as in TRL's GKD with beta 1 and lambda 0), not MiniLLM
proper. Teacher and student must have the same vocabulary; the sum goes over all of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from peft import PeftModel
from torch.nn.functional import cross_entropy, log_softmax
from transformers import PreTrainedModel

from conf.errors import ModelError
from models.chat import Encoded, num_scored
from models.training import Batch, Objective, collate, scored_logits


def reverse_kl(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Return the mean over tokens of KL(student || teacher), in nats; 0 without tokens.

    Args:
        student: (S, V) logits.
        teacher: (S, V) logits.
    """
    if not len(student):
        return student.sum()  # zero, with the graph that backward needs
    log_student = log_softmax(student.float(), dim=-1)
    log_teacher = log_softmax(teacher.float(), dim=-1)
    return (log_student.exp() * (log_student - log_teacher)).sum(dim=-1).mean()


def distilled(
    examples: Sequence[Encoded], teacher: Mapping[int, torch.Tensor], weight: float
) -> Objective:
    """Return the loss above for :func:`models.training.train`.

    Args:
        examples: The training examples.
        teacher: Index of an example -> its teacher logits (scored tokens, V), any float type.
        weight: Weight of the reverse KL.

    Raises:
        ModelError: If an example's teacher logits are not one row for each of its scored tokens.
    """
    for index, logits in teacher.items():
        scored = num_scored(examples[index])
        if logits.ndim != 2 or len(logits) != scored:
            raise ModelError(
                f"teacher logits: expected ({scored}, vocabulary) for example {index}, got "
                f"{tuple(logits.shape)}; teacher and student must encode the text alike"
            )

    def objective(
        model: PreTrainedModel | PeftModel, batch: Batch, chosen: Sequence[int]
    ) -> torch.Tensor:
        student = scored_logits(model, batch)
        loss = cross_entropy(student, batch.targets)
        rows = student.split(batch.scored.sum(dim=1).tolist())
        pairs = [(row, teacher[i]) for row, i in zip(rows, chosen, strict=True) if i in teacher]
        if not pairs:
            return loss
        taught = torch.cat([row for row, _ in pairs])
        given = torch.cat([logits for _, logits in pairs]).to(taught.device)
        _require_same_vocabulary(taught, given)
        return loss + weight * reverse_kl(taught, given)

    return objective


@torch.inference_mode()
def teacher_logits(
    model: PreTrainedModel | PeftModel, examples: Sequence[Encoded], pad_id: int, batch_size: int
) -> list[torch.Tensor]:
    """Return each example's logits at its scored positions: (scored tokens, V) float16, on the CPU.

    Logits beyond float16's range are clipped to it.
    """
    limit = torch.finfo(torch.float16).max
    found: list[torch.Tensor] = []
    for start in range(0, len(examples), batch_size):
        batch = collate(examples[start : start + batch_size], pad_id, model.device)
        logits = scored_logits(model.eval(), batch).clamp(-limit, limit).half().cpu()
        found += [rows.clone() for rows in logits.split(batch.scored.sum(dim=1).tolist())]
    return found


def _require_same_vocabulary(student: torch.Tensor, teacher: torch.Tensor) -> None:
    if student.shape[-1] != teacher.shape[-1]:
        raise ModelError(
            f"teacher logits: expected a vocabulary of {student.shape[-1]} as the student's, got "
            f"{teacher.shape[-1]}; rkd_ft needs two models of one vocabulary"
        )
