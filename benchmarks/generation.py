"""What writing similar pairs costs: one record at a time, or many in a batch.

The network has the size of the miniature cloud. Each record gets k samples, as the augmenter asks.
"""

from __future__ import annotations

import tempfile
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
SAMPLES = 5
BATCH = 128


def run(
    *, size: TransformerSize = SIZE, records: int = 48, peer_records: int = 8, rounds: int = 2
) -> list[Table]:
    """Measure on one user's records, the peer on the first few of them."""
    with tempfile.TemporaryDirectory() as name:
        material = make(Path(name), size, users=1, records=records)
        model = load_causal(CausalModelConfig(path=str(material.plain), dtype="float32"))
        prompts = _prompts(material)
        few = prompts[:peer_records]
        ways = [
            Way("per record, model.generate", lambda: _peer(model, material, few), len(few)),
            Way(f"ours, batches of {BATCH}", lambda: _ours(model, material, prompts), len(prompts)),
        ]
        rows = measure(ways, rounds)
    setting = (
        f"{size.layers} layers of width {size.width}, float32; {SAMPLES} samples per record, "
        f"temperature {SAMPLING.temperature:g}, up to {SAMPLING.max_new_tokens} tokens."
    )
    return [Table("way", setting, "record", "tokens per record", rows)]


def _prompts(material: Material) -> list[str]:
    user = material.data.targets[0]
    return [training_prompt(material.data.task, pair)[0] for pair in user.pairs]


def _peer(model: PreTrainedModel, material: Material, prompts: list[str]) -> str:
    """One prompt at a time, its k samples in one call."""
    tokenizer, tokens = material.tokenizer, 0
    settings = GenerationConfig(
        do_sample=True,
        temperature=SAMPLING.temperature,
        top_k=0,
        max_new_tokens=SAMPLING.max_new_tokens,
        num_return_sequences=SAMPLES,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for prompt in prompts:
            ids = torch.tensor([encode_prompt(tokenizer, prompt, None, 512)])
            mask = torch.ones_like(ids)
            with torch.inference_mode():
                network: Any = model
                output = network.generate(ids, attention_mask=mask, generation_config=settings)
            replies = output[:, ids.shape[1] :]
            tokenizer.batch_decode(replies, skip_special_tokens=True)
            tokens += int((replies != tokenizer.pad_token_id).sum())
    return f"{tokens / len(prompts):.0f}"


def _ours(model: PreTrainedModel, material: Material, prompts: list[str]) -> str:
    """All samples of all prompts, sorted by length, each with its own seed."""
    asked = [prompt for prompt in prompts for _ in range(SAMPLES)]
    replies = generate(model, material.tokenizer, asked, list(range(len(asked))), SAMPLING, BATCH)
    return f"{sum(reply.tokens for reply in replies) / len(prompts):.0f}"
