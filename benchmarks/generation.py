"""What generation costs: one record at a time, or many in a batch.

The network has the size of the miniature cloud. Each record gets one reply, as a query does, or k
samples, as the augmenter asks; the peer too draws those in one call.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel

from benchmarks.material import Material, make
from benchmarks.measure import Table, Way, measure
from conf.schema import CausalModelConfig, SamplingConfig, TransformerSize
from lamp.tasks import training_prompt
from models.chat import encode_prompt
from models.generation import generate
from models.loading import load_causal

SIZE = TransformerSize(layers=4, width=128, heads=2, feed_forward=384)
SAMPLING = SamplingConfig(temperature=0.7, max_new_tokens=48)
BATCH = 128


@dataclass(frozen=True, slots=True)
class Bench:
    """What both ways share.

    Attributes:
        model: The network.
        tokenizer: Its tokenizer.
        samples: Replies per prompt.
    """

    model: PreTrainedModel
    tokenizer: Any
    samples: int


def run(
    *,
    size: TransformerSize = SIZE,
    records: int = 48,
    peer_records: int = 8,
    samples: Sequence[int] = (1, 5),
    rounds: int = 3,
) -> list[Table]:
    """Measure on one user's records, the peer on the first few of them."""
    with tempfile.TemporaryDirectory() as name:
        material = make(Path(name), size, users=1, records=records)
        model = load_causal(CausalModelConfig(path=str(material.plain), dtype="float32"))
        prompts = _prompts(material)
        return [
            _table(Bench(model, material.tokenizer, count), prompts, prompts[:peer_records], rounds)
            for count in samples
        ]


def _table(bench: Bench, prompts: list[str], few: list[str], rounds: int) -> Table:
    ways = [
        Way("per record, model.generate", lambda: _peer(bench, few), len(few)),
        Way(f"ours, batches of {BATCH}", lambda: _ours(bench, prompts), len(prompts)),
    ]
    shape = bench.model.config
    setting = (
        f"{shape.num_hidden_layers} layers of width {shape.hidden_size}, float32; {bench.samples} "
        f"per record, temperature {SAMPLING.temperature:g}, up to {SAMPLING.max_new_tokens} tokens."
    )
    return Table("way", setting, "record", "tokens per record", measure(ways, rounds))


def _prompts(material: Material) -> list[str]:
    user = material.data.targets[0]
    return [training_prompt(material.data.task, pair)[0] for pair in user.pairs]


def _peer(bench: Bench, prompts: list[str]) -> str:
    """One prompt at a time, its samples in one call."""
    tokenizer, tokens = bench.tokenizer, 0
    network: Any = bench.model
    settings = GenerationConfig(
        do_sample=True,
        temperature=SAMPLING.temperature,
        top_k=0,
        max_new_tokens=SAMPLING.max_new_tokens,
        num_return_sequences=bench.samples,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(0)
        for prompt in prompts:
            ids = torch.tensor([encode_prompt(tokenizer, prompt, None, 512)])
            mask = torch.ones_like(ids)
            output = network.generate(ids, attention_mask=mask, generation_config=settings)
            replies = output[:, ids.shape[1] :]
            tokenizer.batch_decode(replies, skip_special_tokens=True)
            tokens += int((replies != tokenizer.pad_token_id).sum())
    return f"{tokens / len(prompts):.0f}"


def _ours(bench: Bench, prompts: list[str]) -> str:
    """All samples of all prompts, sorted by length, each with its own seed."""
    asked = [prompt for prompt in prompts for _ in range(bench.samples)]
    seeds = list(range(len(asked)))
    replies = generate(bench.model, bench.tokenizer, asked, seeds, SAMPLING, BATCH)
    return f"{sum(reply.tokens for reply in replies) / len(prompts):.0f}"
