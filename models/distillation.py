"""What a teacher says of given texts, short enough to travel, and the examples that learn from it.

Up to a vocabulary of ``EXACT_VOCABULARY`` the teacher's logits travel as they are. Above, each
scored token brings the k most likely tokens with their log probabilities, and the mass of all
others together; k is at most ``TOP``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from peft import PeftModel
from torch.nn.functional import log_softmax
from transformers import PreTrainedModel

from conf.errors import ModelError
from models.batch import collate
from models.chat import Encoded, num_scored
from models.losses import Taught, before_head, chunk_rows

EXACT_VOCABULARY = 4096
TOP = 256
_LEAST = -80.0  # log mass of a remainder that float32 cannot tell from none


def truncated(logits: torch.Tensor, top: int = TOP) -> torch.Tensor:
    """Return the k most likely tokens with their log probabilities, and the others' mass.

    Args:
        logits: (S, V), more than ``top`` columns.
        top: k.

    Returns:
        (S, k + 1, 2) float32: token and log probability, ascending by token; at last -1 and the log
        of the remaining mass.
    """
    log_probabilities = log_softmax(logits.float(), dim=-1)
    tokens = log_probabilities.topk(top, dim=-1).indices.sort(dim=-1).values
    rest = log_probabilities.scatter(-1, tokens, -torch.inf).logsumexp(-1, keepdim=True)
    values = torch.cat([log_probabilities.gather(-1, tokens), rest.clamp_min(_LEAST)], dim=-1)
    named = torch.cat([tokens, torch.full_like(tokens[:, :1], -1)], dim=-1)
    return torch.stack([named.float(), values], dim=-1)


@torch.inference_mode()
def teacher_logits(
    model: PreTrainedModel | PeftModel, examples: Sequence[Encoded], pad_id: int, batch_size: int
) -> list[torch.Tensor]:
    """Return what the teacher says of each example's scored tokens, on the CPU.

    (scored tokens, V) float16 logits, clipped to float16's range; above ``EXACT_VOCABULARY`` the
    truncated form.
    """
    found: list[torch.Tensor] = []
    for start in range(0, len(examples), batch_size):
        batch = collate(examples[start : start + batch_size], pad_id, model.device)
        states, head = before_head(
            model.eval(),
            batch.scored,
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
        )
        said = torch.cat(
            [_said(head(rows)).cpu() for rows in states.split(chunk_rows(states, head))]
        )
        found += [rows.clone() for rows in said.split(batch.scored.sum(dim=1).tolist())]
    return found


def taught(
    examples: Sequence[Encoded], teacher: Mapping[int, torch.Tensor], vocabulary: int
) -> list[Encoded]:
    """Return the examples, those of ``teacher`` with what it says of them.

    Args:
        examples: The training examples.
        teacher: Index of an example -> (scored tokens, V) logits or the truncated form.
        vocabulary: V of the student.

    Raises:
        ModelError: If the teacher has not one row for each scored token, or another vocabulary.
    """
    made = list(examples)
    for index, rows in teacher.items():
        example, scored = examples[index], num_scored(examples[index])
        if rows.ndim not in (2, 3) or len(rows) != scored:
            raise ModelError(
                f"teacher logits: expected ({scored}, vocabulary) for example {index}, got "
                f"{tuple(rows.shape)}; teacher and student must encode the text alike"
            )
        _require_vocabulary(rows, vocabulary)
        made[index] = Taught(example.input_ids, example.labels, example.shortened, teacher=rows)
    return made


def _said(logits: torch.Tensor) -> torch.Tensor:
    if logits.shape[-1] > EXACT_VOCABULARY:
        return truncated(logits)
    limit = torch.finfo(torch.float16).max
    return logits.float().clamp(-limit, limit).half()


def _require_vocabulary(rows: torch.Tensor, vocabulary: int) -> None:
    if rows.ndim == 2:
        fits, got = rows.shape[1] == vocabulary, str(rows.shape[1])
    else:
        tokens = rows[:, :-1, 0]
        known = bool(((tokens >= 0) & (tokens < vocabulary)).all())
        sized = rows.shape[1] > 1 and rows.shape[2] == 2
        fits = sized and known and bool(rows.isfinite().all())
        got = f"{tuple(rows.shape)}"
    if not fits:
        raise ModelError(
            f"teacher logits: expected a vocabulary of {vocabulary} as the student's, got "
            f"{got}; rkd_ft needs two models of one vocabulary"
        )
