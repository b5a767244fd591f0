"""How fast a device trains, reads and writes with a network's own shape: measured, a second or two.

Two blocks of the network with weights that mean nothing, its own vocabulary, type and threads, run
through the engine that would train it and through a key-value cache as the decoder has one. What
all of its blocks would take follows from the products that they add.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, Qwen2Config
from transformers.initialization import no_init_weights

from conf.schema import QLoraConfig
from models import lora
from models.chat import IGNORED, Encoded
from models.generation import contiguous_states
from models.multi_lora.cohort import CohortJob, train_cohort
from models.shape import Shape
from models.training import Schedule

PROBE_S = 1.0  # of training; half of it each of reading and writing
PROBE_TOKENS = 512  # trained or read at once
BLOCKS = 2
_SCORED = 0.2  # share of a record's tokens that are scored
_STEPS = 100
_BEGUN = 8  # tokens of a prompt that is written on


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """What one process of a device takes.

    Attributes:
        train_s: Seconds per token of a training record.
        read_s: Seconds per token of a prompt.
        write_s: Seconds per token that ``batch`` prompts get at once.
        batch: Prompts at once.
    """

    train_s: float
    read_s: float
    write_s: float
    batch: int

    def answering_s(self, prompts: float, prompt_tokens: float, new_tokens: float) -> float:
        """Seconds of reading the prompts and writing ``new_tokens`` behind each."""
        batches = math.ceil(prompts / self.batch)
        return prompts * prompt_tokens * self.read_s + batches * new_tokens * self.write_s


def measure(
    shape: Shape, qlora: QLoraConfig, *, dtype: str, device: str, tokens: float, batch: int
) -> Speed:
    """Time a network of this shape where it would run, with the threads that are set.

    Args:
        shape: The network.
        qlora: Shape of the adapters.
        dtype: Type in which it computes.
        device: Torch device.
        tokens: Tokens of a record.
        batch: Prompts written at once.
    """
    blocks = min(BLOCKS, shape.layers)
    slot = lora.attach(_network(shape, blocks, dtype, device), qlora, seed=0)
    width = max(2, min(int(tokens), PROBE_TOKENS))
    ids = torch.randint(0, shape.vocabulary, (max(1, PROBE_TOKENS // width), width))
    whole, part = _products(shape, shape.layers), _products(shape, blocks)
    return Speed(
        train_s=_train_s(slot, ids) / ids.numel() * whole[0] / part[0],
        read_s=_read_s(slot, ids.to(device)) / ids.numel() * shape.layers / blocks,
        write_s=_write_s(slot, ids.to(device), batch) * whole[1] / part[1],
        batch=batch,
    )


def _network(shape: Shape, blocks: int, dtype: str, device: str) -> Any:
    config = Qwen2Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.feed_forward,
        num_hidden_layers=blocks,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        tie_word_embeddings=True,
    )
    config.head_dim = shape.head_width
    with (
        no_init_weights()
    ):  # random numbers for a large vocabulary would take longer than the probe
        network = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    for weight in network.parameters():
        weight.data.fill_(0.01)
    return network.to(device)


def _products(shape: Shape, blocks: int) -> tuple[float, float]:
    """Multiplications per token trained and per token written, of a network of so many blocks."""
    products = [inputs * outputs for inputs, outputs in shape.linear_widths]
    attention, forward = sum(products[:4]), sum(products[4:])
    head = shape.vocabulary * shape.width
    last = _SCORED * (forward + head)  # the engine's last block and its output see scored tokens
    trained = blocks * attention + (blocks - 1) * forward + last
    return trained, blocks * (attention + forward) + head


class _Enough(Exception):  # noqa: N818  # no error: the probe's time is over
    pass


def _train_s(slot: PeftModel, ids: torch.Tensor) -> float:
    """Seconds of the fastest optimizer step; the first is not counted."""
    at = ids.shape[1] - max(1, int(_SCORED * ids.shape[1]))
    rows = [Encoded(row, [IGNORED] * at + row[at:]) for row in ids.tolist()]
    schedule = Schedule(
        steps=_STEPS, batch_size=len(rows), learning_rate=0.0, warmup=0.0, clip=1.0, weight_decay=0
    )
    marks: list[float] = []

    def on_step(_done: int, _total: int) -> None:
        _wait(slot)
        marks.append(time.perf_counter())
        if len(marks) > 1 and marks[-1] - marks[0] > PROBE_S:
            raise _Enough

    job = CohortJob(examples=rows, schedule=schedule, adapter_seed=0, batch_seed=0)
    with suppress(_Enough):
        train_cohort(slot, [job], on_step, 1 << 40)
    return min(later - earlier for earlier, later in pairwise(marks))


@torch.inference_mode()
def _read_s(slot: PeftModel, ids: torch.Tensor) -> float:
    with contiguous_states(slot):
        return _fastest(slot, lambda: slot(input_ids=ids, use_cache=False, logits_to_keep=1))


@torch.inference_mode()
def _write_s(slot: PeftModel, ids: torch.Tensor, batch: int) -> float:
    begun = ids[:1, :_BEGUN].repeat(batch, 1)
    with contiguous_states(slot):
        cache = slot(input_ids=begun, use_cache=True, logits_to_keep=1).past_key_values
    following = begun[:, :1].contiguous()
    return _fastest(slot, lambda: slot(input_ids=following, past_key_values=cache, use_cache=True))


def _fastest(slot: PeftModel, step: Callable[[], object]) -> float:
    """Seconds of the fastest call: a machine that is busy now must not count twice."""
    step()
    began, best = time.perf_counter(), math.inf
    while best == math.inf or time.perf_counter() - began < PROBE_S / 2:
        _wait(slot)
        started = time.perf_counter()
        step()
        _wait(slot)
        best = min(best, time.perf_counter() - started)
    return best


def _wait(slot: PeftModel) -> None:
    if slot.device.type == "cuda":
        torch.cuda.synchronize(slot.device)
