"""Answering queries greedily, of one user or of many: each with its own adapter, or with none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from conf.schema import SamplingConfig
from lamp.records import Prompt
from models import lora
from models.generation import Generation, OnBatch, Stacked, generate
from models.merging import merged
from models.multi_lora.stacked import NotStackableError, Stack, installed

Adapter = Mapping[str, torch.Tensor]  # by the names of models.lora.lora_parameters


def answer_queries(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[str | Prompt]],
    adapters: Sequence[Adapter | None],
    sampling: SamplingConfig,
    batch_size: int,
    system: str | None = None,
    on_batch: OnBatch | None = None,
    *,
    merge: bool = False,
) -> list[list[Generation]]:
    """Answer the prompts of all users in common batches.

    Users with different adapters are answered through a stack of them; where the layers cannot be
    stacked, or adapters are merged, one user after the other. One adapter for all, or none, needs
    no stack.

    Args:
        model: Frozen base with an adapter slot, left in eval mode; the slot may be filled.
        tokenizer: Its tokenizer.
        prompts: The prompts of each user.
        adapters: One per user; None answers with the base alone. The same object for all is one
            adapter for all.
        sampling: Settings with temperature 0.
        batch_size: Prompts decoded at once, of all users.
        system: System turn; None leaves it to the chat template.
        on_batch: Called after each batch with the number of prompts it answered.
        merge: Merge an adapter into the base's weights while it answers (:mod:`models.merging`).

    Returns:
        The answers of each user, in the order of that user's prompts.

    Raises:
        ModelError: If an adapter does not fit, or the context cannot hold an answer.
    """
    flat = [prompt for own in prompts for prompt in own]
    seeds = [0] * len(flat)  # greedy: nothing is drawn

    def decode(
        network: PreTrainedModel | PeftModel, stacked: Stacked | None = None
    ) -> list[list[Generation]]:
        settings = sampling, batch_size, system, on_batch, stacked
        answers = iter(generate(network, tokenizer, flat, seeds, *settings))
        return [[next(answers) for _ in own] for own in prompts]

    if len({id(adapter) for adapter in adapters}) <= 1:
        with _with_one(model, next(iter(adapters), None), merge=merge) as network:
            return decode(network)
    if not merge:
        with suppress(NotStackableError):
            states = [lora.zeros(model) if each is None else each for each in adapters]
            owners = [user for user, own in enumerate(prompts) for _ in own]
            stack = Stack(model, states)
            with installed(model, stack.modules()) as base:  # the model below the slot
                return decode(base, Stacked(stack, owners))  # type: ignore[arg-type]
    settings = sampling, batch_size, system, on_batch
    return [
        answer_queries(model, tokenizer, [own], [adapter], *settings, merge=merge)[0]
        for own, adapter in zip(prompts, adapters, strict=True)
    ]


@contextmanager
def _with_one(
    model: PeftModel, adapter: Adapter | None, *, merge: bool
) -> Iterator[PreTrainedModel | PeftModel]:
    """Yield what answers with ``adapter`` inside the block: in the slot, or merged."""
    if adapter is None:
        with lora.disabled(model):
            yield model
    elif merge:
        with merged(model, adapter) as network:
            yield network
    else:
        lora.fill(model, adapter, "to answer with")
        yield model
