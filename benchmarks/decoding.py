"""How fast real checkpoints decode on this machine: ours beside transformers' ``generate``.

``python -m benchmarks.decoding --device <checkpoint> --cloud <checkpoint> [--threads 2]`` takes a
GGUF file or a folder in Hugging Face layout for each. Ways of a table take turns in one process:
one prompt at a time with an adapter in the slot and merged into the base; ``BATCH`` prompts at once
through :mod:`models.generation` and through ``generate``. Greedy, in bfloat16. Processor time is
counted, which other work on the machine changes little; with one thread and nothing beside it is
wall time. Appended to RESULTS.md; ``--base`` and ``--adapter`` of a run let a trained one answer.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import GenerationConfig, PreTrainedModel

from benchmarks.material import trained_alike
from benchmarks.measure import Sheet, append
from benchmarks.parity_texts import prompts
from conf.schema import CausalModelConfig, QLoraConfig, SamplingConfig
from models import loading, lora
from models.answering import answer_queries
from models.chat import encode_prompt, pad_id, stop_ids
from models.generation import generate
from models.sources import resolve_causal

ALONE, BATCH = 4, 32  # prompts
TOKENS = 48  # written to each prompt, at most
ROUNDS = 3
QLORA = QLoraConfig()


def main(argv: Sequence[str]) -> int:
    """Measure, print and append to RESULTS.md."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decoding")
    parser.add_argument("--device", required=True, help="checkpoint of the device")
    parser.add_argument("--cloud", help="checkpoint of the cloud")
    parser.add_argument("--adapter", type=Path, help="PEFT folder; a random one by default")
    parser.add_argument("--base", type=Path, help="the adapter's base in NF4")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/cdcda").expanduser())
    given = parser.parse_args(argv)
    torch.set_num_threads(given.threads)
    small = resolve_causal(CausalModelConfig(path=given.device), given.cache, lambda *_: None)
    tables = [alone(given.base or Path(small.path), given.adapter), together(small)]
    if given.cloud:
        large = resolve_causal(CausalModelConfig(path=given.cloud), given.cache, lambda *_: None)
        tables.append(together(large))
    print(append("decoding", tables))
    return 0


def alone(base: Path, adapter: Path | None) -> Sheet:
    """One prompt at a time with an adapter: in the slot, and merged into the base."""
    slot = lora.attach(loading.load_device_base(base, QLORA), QLORA, seed=0)
    state = trained_alike(slot, 0) if adapter is None else lora.read(slot, adapter)
    tokenizer, asked = loading.load_tokenizer(base), prompts()[:ALONE]
    sampling = SamplingConfig(temperature=0, max_new_tokens=TOKENS)

    def answer(groups: Sequence[Sequence[str]], *, merge: bool) -> int:
        answers = [
            each
            for group in groups
            for each in answer_queries(slot, tokenizer, [group], [state], sampling, 1, merge=merge)[
                0
            ]
        ]
        return sum(each.tokens for each in answers)

    single = [[each] for each in asked]
    ways = {
        "adapter in the slot": lambda: answer(single, merge=False),
        "merged, for each prompt anew": lambda: answer(single, merge=True),
        f"merged, once for {ALONE} prompts": lambda: answer([asked], merge=True),
    }
    drawn = "a drawn" if adapter is None else "a trained"
    setting = f"{_sizes(slot)}; NF4 dequantised once, {drawn} adapter of rank {QLORA.rank}"
    return _in_turns(f"{setting}, one prompt at a time", ways)


def together(checkpoint: CausalModelConfig) -> Sheet:
    """``BATCH`` prompts at once: transformers' loop and ours."""
    model = loading.load_causal(replace(checkpoint, dtype="bfloat16"))
    tokenizer = loading.load_tokenizer(checkpoint.path)
    # numbered, so that no two prompts are prefilled as one: the peer cannot do that
    asked = [f"{number}. {each}" for number, each in enumerate((prompts() * BATCH)[:BATCH], 1)]
    ways = {
        "model.generate": lambda: _peer(model, tokenizer, asked),
        "ours": lambda: _ours(model, tokenizer, asked),
    }
    return _in_turns(f"{_sizes(model)}; {BATCH} prompts at once", ways)


def _in_turns(setting: str, ways: Mapping[str, Callable[[], int]]) -> Sheet:
    """Time the ways, each of which returns its tokens; the fastest of the rounds counts."""
    best: dict[str, float] = {}
    counts: dict[str, int] = {}
    for _ in range(ROUNDS):
        for name, answer in ways.items():
            started = time.process_time()
            counts[name] = answer()
            each = (time.process_time() - started) / counts[name]
            print(f"{name}: {1e3 * each:.1f} ms a token", file=sys.stderr, flush=True)
            best[name] = min(each, best.get(name, each))
    first = next(iter(best.values()))
    rows = tuple(
        (name, f"{counts[name]:,}", f"{1e3 * each:.1f}", f"{1 / each:.1f}", f"{first / each:.2f}")
        for name, each in best.items()
    )
    heads = ("way", "tokens", "CPU ms per token", "tokens per CPU second", "x the first")
    return Sheet(f"{setting}, greedy, up to {TOKENS} tokens each.", heads, rows)


def _ours(model: PreTrainedModel, tokenizer: Any, asked: Sequence[str]) -> int:
    sampling = SamplingConfig(temperature=0, max_new_tokens=TOKENS)
    answers = generate(model, tokenizer, asked, [0] * BATCH, sampling, BATCH)
    return sum(each.tokens for each in answers)


@torch.inference_mode()
def _peer(model: PreTrainedModel, tokenizer: Any, asked: Sequence[str]) -> int:
    """Tokens up to each reply's end; padded on the left, in one call."""
    network: Any = model
    ids = [encode_prompt(tokenizer, each, None, 512) for each in asked]
    width, pad = max(map(len, ids)), pad_id(tokenizer)
    rows = torch.tensor([[pad] * (width - len(row)) + row for row in ids])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids])
    stops = list(stop_ids(tokenizer, None))
    settings = GenerationConfig(
        do_sample=False, max_new_tokens=TOKENS, eos_token_id=stops, pad_token_id=pad
    )
    written = network.generate(rows, attention_mask=mask, generation_config=settings)
    ends = torch.isin(written[:, width:], torch.tensor(stops)).long()
    return int((ends.cumsum(1) - ends == 0).sum())


def _sizes(model: PreTrainedModel | PeftModel) -> str:
    shape = model.config
    return (
        f"{shape.num_hidden_layers} layers of width {shape.hidden_size}, vocabulary "
        f"{shape.vocab_size:,}, bfloat16"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
