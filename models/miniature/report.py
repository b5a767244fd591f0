"""Figures of a freshly built cloud model on users that it did not learn from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM

from conf.seeds import derive_seed
from lamp.prompts import augmentation_prompt, augmentation_reply
from models.chat import encode_prompt
from models.miniature.corpus import MAX_TOKENS, Corpus

SAMPLES = 96
TEMPERATURE = 0.7
MAX_NEW_TOKENS = 128


def cloud_figures(
    model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, corpus: Corpus
) -> dict[str, float]:
    """Share of well-formed replies to the augmentation prompt, and of right answers to queries.

    ``reply_form`` counts sampled replies of the form "Input: [..], Response: [..]" at the paper's
    temperature; ``same_response`` those that also repeat the example's response; ``answer_exact``
    greedy answers to queries that equal the gold answer.
    """
    pairs = [pair for user in corpus.held_out for pair in user.pairs][:SAMPLES]
    queries = [query for user in corpus.held_out for query in user.queries][:SAMPLES]
    replies = _answers(model, tokenizer, [augmentation_prompt(p) for p in pairs], TEMPERATURE)
    answers = _answers(model, tokenizer, [q.input for q in queries], 0.0)
    before, between, after = "Input: [", "], Response: [", "]"
    formed = [r.startswith(before) and between in r and r.endswith(after) for r in replies]
    same = [
        ok and reply.endswith(augmentation_reply(pair).partition("], ")[2])
        for ok, reply, pair in zip(formed, replies, pairs, strict=True)
    ]
    exact = [a.strip() == q.gold.strip() for a, q in zip(answers, queries, strict=True)]
    return {
        "reply_form": sum(formed) / len(formed),
        "same_response": sum(same) / len(same),
        "answer_exact": sum(exact) / max(1, len(exact)),
    }


@torch.inference_mode()
def _answers(
    model: Qwen2ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[str],
    temperature: float,
) -> list[str]:
    if not prompts:
        return []
    ids = [encode_prompt(tokenizer, prompt, None, MAX_TOKENS) for prompt in prompts]
    padded = tokenizer.pad({"input_ids": ids}, padding_side="left", return_tensors="pt")
    sampling: dict[str, Any] = {"do_sample": False}
    if temperature:
        sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(0, "report"))
        output = model.generate(  # type: ignore[misc]
            **padded, max_new_tokens=MAX_NEW_TOKENS, **sampling
        )
    start = padded["input_ids"].shape[1]
    return list(tokenizer.batch_decode(output[:, start:], skip_special_tokens=True))
