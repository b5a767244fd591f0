"""Batched generation in which every setting is stated and every record has its own random stream.

The checkpoint's ``generation_config.json`` has no influence. Record i draws its uniforms from its
own seed and picks tokens by the inverse of the cumulative distribution, so its text depends on its
prompt and seed, not on which other records share its batch (exact but for numerical ties in
float32; in bfloat16 another batch rounds in another way).

The loop over the key-value cache is written out, as ``model.generate`` can neither prefill the same
prompt once for its k samples nor drop finished rows. In its own right it saves little (4 layers of
width 128, batch 128, prompts of 90 to 120 tokens, 48 new ones, one CPU thread: 1.53 s of CPU time
against 1.63 s in float32, 1.01 s against 1.06 s in bfloat16); prefilling 50 prompts once for five
samples each takes 3.1 s where 250 distinct prompts take 4.6 s (float32; bfloat16 3.0 s and 4.1 s).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from peft import PeftModel
from transformers import (
    LogitsProcessor,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from conf.errors import ModelError
from conf.schema import SamplingConfig
from lamp.records import Prompt
from models.chat import encode_text, encode_turn, pad_id, stop_ids
from models.kv_cache import roomy_cache
from models.multi_lora.stacked import Stack

OnBatch = Callable[[int], None]
_Row = tuple[int, tuple[int, ...]]  # whose, and the prompt's ids
DROP_SHARE = 0.125  # finished rows leave the batch once they are this share of it


@dataclass(frozen=True, slots=True)
class Generation:
    """One reply.

    Attributes:
        text: The reply without control tokens.
        tokens: Tokens generated, the end-of-turn token included.
        finished: Whether the reply ended by itself, not by ``max_new_tokens``.
        shortened: Whether its prompt was too long and lost text.
    """

    text: str
    tokens: int
    finished: bool
    shortened: bool = False


@dataclass(frozen=True, slots=True)
class Stacked:
    """Users who are answered in one batch.

    Attributes:
        stack: Their adapters, installed in the model.
        owners: For each prompt the user's place in the stack.
    """

    stack: Stack
    owners: Sequence[int]


def generate(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str | Prompt],
    seeds: Sequence[int],
    sampling: SamplingConfig,
    batch_size: int,
    system: str | None = None,
    on_batch: OnBatch | None = None,
    stacked: Stacked | None = None,
    prefill: str = "",
) -> list[Generation]:
    """Answer each prompt under its own seed.

    Args:
        model: Causal model, with or without an adapter; left in eval mode.
        tokenizer: Its tokenizer.
        prompts: User texts. Equal ones are prefilled once where they fall into one batch.
        seeds: One seed per prompt; not used when ``sampling.temperature`` is 0 (greedy).
        sampling: All sampling settings.
        batch_size: Prompts decoded at once, grouped by length.
        system: System turn; None leaves it to the chat template.
        on_batch: Called after each batch with the number of prompts it answered.
        stacked: Adapters of several users, installed in ``model``, and whose each prompt is.
        prefill: How every reply begins; the texts are what comes behind it.

    Returns:
        One generation per prompt, in the order of ``prompts``.

    Raises:
        ModelError: If the model's context cannot hold ``max_new_tokens`` beside a prompt.
    """
    context = int(model.config.max_position_embeddings)
    encoded, shortened = _encode_all(context, tokenizer, prompts, sampling, system, prefill)
    owners = stacked.owners if stacked else (0,) * len(prompts)
    decoder = _Decoder(model, tokenizer, sampling, system, stacked)
    replies: dict[int, Generation] = {}
    for batch in _by_length(encoded, batch_size):
        chosen = sorted(batch, key=lambda index: owners[index])
        rows = [(owners[index], encoded[index]) for index in chosen]
        answers = decoder.decode(rows, [seeds[index] for index in chosen])
        for index, answer in zip(chosen, answers, strict=True):
            replies[index] = replace(answer, shortened=shortened[index])
        if on_batch is not None:
            on_batch(len(chosen))
    return [replies[index] for index in range(len(prompts))]


def length_batches(
    context: int,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str | Prompt],
    sampling: SamplingConfig,
    batch_size: int,
    system: str | None = None,
    prefill: str = "",
) -> list[list[int]]:
    """Return which prompts :func:`generate` decodes together, without loading a network.

    A batch that is generated by itself, in this order, gets the texts that it gets among the
    others: batches can be handed to several workers.

    Args:
        context: Tokens that the network can attend to.
        tokenizer: Its tokenizer.
        prompts: User texts.
        sampling: All sampling settings.
        batch_size: Prompts decoded at once.
        system: System turn; None leaves it to the chat template.
        prefill: How every reply begins.
    """
    encoded, _ = _encode_all(context, tokenizer, prompts, sampling, system, prefill)
    return list(_by_length(encoded, batch_size))


def inverse_cdf(logits: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Draw one token per row: the first whose cumulative probability exceeds its uniform number.

    Args:
        logits: (B, V); minus infinity is never drawn.
        uniforms: (B,) float64 in [0, 1).

    Returns:
        (B,) int64.
    """
    cumulative = torch.softmax(logits.double(), dim=-1).cumsum(dim=-1)
    height = (uniforms * cumulative[:, -1]).unsqueeze(1)
    drawn = torch.searchsorted(cumulative, height, right=True).squeeze(1)
    return drawn.clamp_(max=logits.shape[-1] - 1)


@contextmanager
def contiguous_states(model: PreTrainedModel | PeftModel) -> Iterator[None]:
    """Let the output layer read states that lie together.

    The last positions of prompts do not; for such PyTorch multiplies prompt by prompt, and in
    bfloat16 on a CPU it copies the layer's weights for each: 150 ms instead of 7 for 49,152 tokens
    of width 576. Of a single prompt only the strides tell, which ``contiguous()`` leaves.
    """
    hook = model.get_output_embeddings().register_forward_pre_hook(
        lambda _head, inputs: (inputs[0].clone(memory_format=torch.contiguous_format), *inputs[1:])
    )
    try:
        yield
    finally:
        hook.remove()


class _Decoder:
    """What stays the same from batch to batch."""

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        sampling: SamplingConfig,
        system: str | None,
        stacked: Stacked | None,
    ) -> None:
        self._model = model.eval()
        self._stack = stacked.stack if stacked else None
        self._tokenizer = tokenizer
        self._sampling = sampling
        self._stops = stop_ids(tokenizer, system)
        self._pad = pad_id(tokenizer)
        self._warpers = _warpers(sampling)

    @torch.inference_mode()
    def decode(self, rows: Sequence[_Row], seeds: Sequence[int]) -> list[Generation]:
        """Continue each row of prompt ids; rows of one owner stand together."""
        with contiguous_states(self._model):
            tokens = self._continue(rows, self._uniforms(seeds))
        return [self._read(row) for row in tokens.tolist()]

    def _continue(self, rows: Sequence[_Row], uniforms: torch.Tensor) -> torch.Tensor:
        """Return (B, max_new_tokens) tokens; what stands behind a row's first stop is undefined."""
        state = self._prefill(rows)
        stops = torch.tensor(self._stops, device=self._model.device)
        steps = self._sampling.max_new_tokens
        chosen = torch.full((len(rows), steps), self._pad, device=self._model.device)
        running = torch.ones(len(rows), dtype=torch.bool, device=self._model.device)
        for step in range(steps):
            tokens = self._pick(state, uniforms[state.rows, step])
            chosen[state.rows, step] = tokens
            running &= ~torch.isin(tokens, stops)
            left = int(running.sum())
            if not left or step + 1 == steps:
                break
            if left <= (1 - DROP_SHARE) * len(running):
                kept = running.nonzero().squeeze(1)
                state.keep(kept)
                tokens, running = tokens[kept], running[kept]
            self._advance(state, tokens)
        return chosen

    def _prefill(self, rows: Sequence[_Row]) -> _State:
        """Run the prompts, each distinct one of an owner once, padded on the left."""
        distinct = dict.fromkeys(rows)
        place = {row: index for index, row in enumerate(distinct)}
        width = max(len(ids) for _, ids in distinct)
        ids = torch.tensor([[self._pad] * (width - len(row)) + list(row) for _, row in distinct])
        lengths = torch.tensor([len(row) for _, row in distinct]).unsqueeze(1)
        mask = (torch.arange(width) >= width - lengths).long()
        device, capacity = self._model.device, width + self._sampling.max_new_tokens
        state = _State(self._model, ids.to(device), mask.to(device), capacity)
        if self._stack is not None:
            state.own(self._stack, [owner for owner, _ in distinct])
        state.forward(state.input_ids, (state.mask.cumsum(1) - 1).clamp_(min=0))
        if len(distinct) < len(rows):
            state.keep(torch.tensor([place[row] for row in rows], device=self._model.device))
        state.rows = torch.arange(len(rows), device=self._model.device)
        return state

    def _advance(self, state: _State, tokens: torch.Tensor) -> None:
        state.append(tokens)
        state.forward(tokens.unsqueeze(1), state.mask.sum(1, keepdim=True) - 1)

    def _pick(self, state: _State, uniforms: torch.Tensor) -> torch.Tensor:
        # rows of the output layer beyond the tokenizer (Qwen2.5 has 271) stand for no token
        logits = state.logits[:, : len(self._tokenizer)].float()
        if self._sampling.repetition_penalty != 1:
            logits = _penalise(logits, state, self._sampling.repetition_penalty)
        if self._sampling.temperature == 0:
            return logits.argmax(dim=-1)
        return inverse_cdf(self._warp(logits), uniforms)

    def _warp(self, logits: torch.Tensor) -> torch.Tensor:
        for warper in self._warpers:
            logits = warper(None, logits)  # none of them reads ids
        return logits

    def _uniforms(self, seeds: Sequence[int]) -> torch.Tensor:
        """Return (B, max_new_tokens) float64 numbers in [0, 1), each row from its own seed."""
        steps = self._sampling.max_new_tokens
        if self._sampling.temperature == 0:
            return torch.zeros(len(seeds), steps, device=self._model.device)
        drawn = np.stack([np.random.default_rng(seed).random(steps) for seed in seeds])
        return torch.from_numpy(drawn).to(self._model.device)

    def _read(self, tokens: list[int]) -> Generation:
        stop = next((at for at, token in enumerate(tokens) if token in self._stops), None)
        reply = tokens[:stop]
        text = self._tokenizer.decode(
            reply, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return Generation(str(text), len(reply) + (stop is not None), stop is not None)


class _State:
    """A batch on its way: cache, mask and last logits of the rows still running.

    Attributes:
        input_ids: (B, T) prompt and what was generated; padding where ``mask`` is 0.
        mask: (B, T) int64.
        logits: (B, V) of the last position.
        rows: (B,) which row of the batch each one is.
    """

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        input_ids: torch.Tensor,
        mask: torch.Tensor,
        capacity: int,
    ) -> None:
        self._model = model
        self._cache = roomy_cache(model.config, capacity)
        self.input_ids, self.mask = input_ids, mask
        self.logits = self.rows = torch.empty(0)
        self._stack: Stack | None = None
        self._owners: list[int] = []

    def own(self, stack: Stack, owners: Sequence[int]) -> None:
        """Take the rows for those of users of ``stack``, in the order of the stack."""
        self._stack, self._owners = stack, list(owners)

    def forward(self, input_ids: torch.Tensor, position_ids: torch.Tensor) -> None:
        """Feed new tokens and keep the logits of the last position."""
        if self._stack is not None:
            rows = Counter(self._owners)
            users = range(len(self._stack.weights))
            self._stack.belongs([rows[user] * input_ids.shape[1] for user in users])
        self.logits = self._model(
            input_ids=input_ids,
            attention_mask=self.mask,
            position_ids=position_ids,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]

    def append(self, tokens: torch.Tensor) -> None:
        """Lengthen ids and mask by one generated token per row."""
        self.input_ids = torch.cat([self.input_ids, tokens.unsqueeze(1)], dim=1)
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], dim=1)

    def keep(self, indices: torch.Tensor) -> None:
        """Reduce the batch to ``indices``; an index may come several times."""
        self._cache.batch_select_indices(indices)
        self.input_ids, self.mask = self.input_ids[indices], self.mask[indices]
        self.logits = self.logits[indices]
        if self._owners:
            self._owners = [self._owners[index] for index in indices.tolist()]
        if len(self.rows):
            self.rows = self.rows[indices]


def _encode_all(
    context: int,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str | Prompt],
    sampling: SamplingConfig,
    system: str | None,
    prefill: str,
) -> tuple[list[tuple[int, ...]], list[bool]]:
    """The ids of every prompt, and which of them were too long and lost text."""
    begun = encode_text(tokenizer, prefill) if prefill else []
    room = context - sampling.max_new_tokens - len(begun)
    if room <= 0:
        raise ModelError(
            f"generation: expected max_new_tokens below the model's context of {context} tokens, "
            f"got {sampling.max_new_tokens}"
        )
    known = {prompt: encode_turn(tokenizer, prompt, system, room) for prompt in set(prompts)}
    made = [known[prompt] for prompt in prompts]
    return [(*ids, *begun) for ids, _ in made], [shortened for _, shortened in made]


def _by_length(encoded: Sequence[tuple[int, ...]], batch_size: int) -> Iterator[list[int]]:
    """Yield batches of indices, longest prompts first; equal prompts stand together."""
    order = sorted(range(len(encoded)), key=lambda index: (-len(encoded[index]), encoded[index]))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def _warpers(sampling: SamplingConfig) -> list[LogitsProcessor]:
    """Return transformers' warpers in transformers' order, those that change something."""
    warpers: list[LogitsProcessor] = []
    if sampling.temperature not in (0, 1):
        warpers.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k > 0:
        warpers.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        warpers.append(TopPLogitsWarper(sampling.top_p))
    return warpers


def _penalise(logits: torch.Tensor, state: _State, penalty: float) -> torch.Tensor:
    """Make tokens that occurred less likely, prompt included.

    As transformers' ``RepetitionPenaltyLogitsProcessor``, but padding does not count as occurring:
    it would make a row depend on how long the other prompts of its batch are.
    """
    counts = torch.zeros_like(logits, dtype=torch.int64)
    occurred = counts.scatter_add_(1, state.input_ids, state.mask) > 0
    return torch.where(
        occurred, torch.where(logits > 0, logits / penalty, logits * penalty), logits
    )
