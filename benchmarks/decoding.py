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
TOKENS = 32  # written to each prompt, at most
ROUNDS = 2
QLORA = QLoraConfig()


def main(argv: Sequence[str]) -> int:
    """Measure, print and append to RESULTS.md."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decoding")
    parser.add_argument("--device", help="checkpoint of the device")
    parser.add_argument("--cloud", help="checkpoint of the cloud")
    parser.add_argument("--adapter", type=Path, help="PEFT folder; a random one by default")
    parser.add_argument("--base", type=Path, help="the adapter's base in NF4")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/cdcda").expanduser())
    given = parser.parse_args(argv)
    torch.set_num_threads(given.threads)
    for name in filter(None, (given.device, given.cloud)):
        model = resolve_causal(CausalModelConfig(path=name), given.cache, lambda *_: None)
        if name == given.device:
            print(append("decoding", [alone(given.base or Path(model.path), given.adapter)]))
        print(append("decoding", [together(model)]), flush=True)
    return 0


def alone(base: Path, adapter: Path | None) -> Sheet:
    """One prompt at a time with an adapter: in the slot, and merged into the base."""
    slot = lora.attach(loading.load_device_base(base, QLORA), QLORA, seed=0)
    state = trained_alike(slot, 0) if adapter is None else lora.read(slot, adapter)
    tokenizer, asked = loading.load_tokenizer(base), prompts()[:ALONE]

    def answer(groups: Sequence[Sequence[str]], limit: int, *, merge: bool) -> int:
        sampling = SamplingConfig(temperature=0, max_new_tokens=limit)
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
        "adapter in the slot": lambda limit: answer(single, limit, merge=False),
        "merged, for each prompt anew": lambda limit: answer(single, limit, merge=True),
        f"merged, once for {ALONE} prompts": lambda limit: answer([asked], limit, merge=True),
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
        "model.generate": lambda limit: _peer(model, tokenizer, asked, limit),
        "ours": lambda limit: _ours(model, tokenizer, asked, limit),
    }
    return _in_turns(f"{_sizes(model)}; {BATCH} prompts at once", ways)


def _in_turns(setting: str, ways: Mapping[str, Callable[[int], int]]) -> Sheet:
    """Time the ways, which write up to so many tokens a prompt and return how many they wrote."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, answer in ways.items():
            (first, begun), (whole, tokens) = (_timed(answer, limit) for limit in (1, TOKENS))
            found[name].append((whole / tokens, (whole - first) / (tokens - begun)))
            print(f"{name}: {found[name][-1]} s a token", file=sys.stderr, flush=True)
    best = {
        name: [1e3 * min(each) for each in zip(*own, strict=True)] for name, own in found.items()
    }
    slow = next(iter(best.values()))
    rows = tuple(
        (
            name,
            f"{whole:.1f}",
            f"{slow[0] / whole:.2f}",
            f"{behind:.1f}",
            f"{slow[1] / behind:.2f}",
            f"{1e3 / behind:.0f}",
        )
        for name, (whole, behind) in best.items()
    )
    heads = (
        "way", "CPU ms per token, prompts read too", "x the first", "CPU ms per further token",
        "x the first", "further tokens per CPU second",
    )  # fmt: skip
    return Sheet(f"{setting}, greedy, up to {TOKENS} tokens each.", heads, rows)


def _timed(answer: Callable[[int], int], limit: int) -> tuple[float, int]:
    started = time.process_time()
    tokens = answer(limit)
    return time.process_time() - started, tokens


def _ours(model: PreTrainedModel, tokenizer: Any, asked: Sequence[str], limit: int) -> int:
    sampling = SamplingConfig(temperature=0, max_new_tokens=limit)
    answers = generate(model, tokenizer, asked, [0] * BATCH, sampling, BATCH)
    return sum(each.tokens for each in answers)


@torch.inference_mode()
def _peer(model: PreTrainedModel, tokenizer: Any, asked: Sequence[str], limit: int) -> int:
    """Tokens up to each reply's end; padded on the left, in one call."""
    network: Any = model
    ids = [encode_prompt(tokenizer, each, None, 512) for each in asked]
    width, pad = max(map(len, ids)), pad_id(tokenizer)
    rows = torch.tensor([[pad] * (width - len(row)) + row for row in ids])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids])
    stops = list(stop_ids(tokenizer, None))
    settings = GenerationConfig(
        do_sample=False, max_new_tokens=limit, eos_token_id=stops, pad_token_id=pad
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
