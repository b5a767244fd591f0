"""Measures, in a process of its own, by how much training and answering grow it; prints JSON.

    python -m tests.models.measure_peaks

Memory that was freed must go back to the system at once, else an earlier peak hides the next:
MALLOC_MMAP_THRESHOLD_ and MALLOC_TRIM_THRESHOLD_ are set by who starts this.
"""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Callable
from pathlib import Path

import torch
from peft import PeftModel
from transformers import Qwen2Config, Qwen2ForCausalLM

from conf.schema import QLoraConfig
from models import lora, memory
from models.chat import IGNORED, Encoded
from models.multi_lora.cohort import CohortJob, train_cohort
from models.training import Schedule

RANK = 8
# layers, width, feed-forward, heads, key and value heads, vocabulary
SMALL, WIDE, DEEP = (
    (4, 256, 704, 4, 2, 8000),
    (2, 512, 1408, 8, 2, 32000),
    (8, 192, 512, 6, 2, 8000),
)
PAPER = (2, 256, 704, 4, 2, 151_936)
# network, type, records, tokens of each, scored ones, users
TRAININGS = [
    (SMALL, "bfloat16", 16, 128, 16, 1),
    (SMALL, "float32", 16, 128, 16, 1),
    (WIDE, "bfloat16", 8, 400, 40, 1),
    (DEEP, "bfloat16", 8, 200, 8, 2),
    (SMALL, "float32", 8, 96, 16, 4),
    (PAPER, "bfloat16", 8, 64, 32, 1),
]
# the same with checkpointed blocks
CHECKPOINTED = [(DEEP, "bfloat16", 8, 200, 8, 2), (SMALL, "float32", 16, 128, 16, 1)]
# network, prompts, tokens of each, tokens written
ANSWERS = [(SMALL, 32, 200, 12), (WIDE, 16, 300, 8)]


def status(key: str) -> int:
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.search(rf"{key}:\s+(\d+)", text)[1]) * 1024


def grown(step: Callable[[], object]) -> int:
    """The process's peak while ``step`` runs, beyond what it had before."""
    gc.collect()
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # forgets earlier peaks
    step()
    return status("VmHWM") - before


def network(sizes: tuple[int, ...], dtype: torch.dtype) -> PeftModel:
    layers, width, wide, heads, kv_heads, vocabulary = sizes
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=wide,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        tie_word_embeddings=True,
    )
    plain = Qwen2ForCausalLM(config).to(dtype)
    return lora.attach(plain, QLoraConfig(rank=RANK, dropout=0.05), seed=0)


def training(sizes, name, records, length, scored, users, checkpointed=False) -> tuple[int, int]:
    """Measured and planned bytes beyond network and slot."""
    dtype = getattr(torch, name)
    slot = network(sizes, dtype)
    ids = torch.randint(0, sizes[-1], (users, records, length)).tolist()
    schedule = Schedule(
        steps=2, batch_size=records, learning_rate=1e-3, warmup=0.0, clip=1.0, weight_decay=0.0
    )
    jobs = [
        CohortJob(
            examples=[
                Encoded(row, [IGNORED] * (length - scored) + row[length - scored :]) for row in own
            ],
            schedule=schedule,
            adapter_seed=0,
            batch_seed=user,
        )
        for user, own in enumerate(ids)
    ]
    measured = grown(lambda: train_cohort(slot, jobs, None, 1 << 40, None, checkpointed))
    shape = memory.shape_of_network(slot.config)
    plan = memory.training(
        shape,
        rank=RANK,
        itemsize=dtype.itemsize,
        tokens=users * records * length,
        scored=users * records * scored,
        width=length,
        users=users,
        form="plain",
        checkpointed=checkpointed,
    )
    return measured, plan.total - plan.weights - 4 * shape.adapter_parameters(RANK)


def answering(sizes, prompts, tokens, new) -> tuple[int, int]:
    """Measured and planned bytes beyond network and slot."""
    slot = network(sizes, torch.float32)
    ids = torch.randint(0, sizes[-1], (prompts, tokens))

    @torch.inference_mode()
    def answer() -> None:
        found = slot(input_ids=ids, use_cache=True, logits_to_keep=1)
        for _ in range(new):
            following = found.logits[:, -1].float().argmax(-1, keepdim=True)
            found = slot(input_ids=following, past_key_values=found.past_key_values, use_cache=True)

    measured = grown(answer)
    plan = memory.answering(
        memory.shape_of_network(slot.config),
        itemsize=4,
        prompts=prompts,
        prompt_tokens=tokens,
        new_tokens=new,
    )
    return measured, plan.total - plan.weights


def main() -> None:
    torch.set_num_threads(1)
    training(*TRAININGS[0])  # the libraries' own start
    answering(SMALL, 2, 8, 2)
    rows = [["train", *case, *training(*case)] for case in TRAININGS]
    rows += [["checkpointed", *case, *training(*case, True)] for case in CHECKPOINTED]
    rows += [["answer", *case, *answering(*case)] for case in ANSWERS]
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
