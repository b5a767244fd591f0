"""Training a small Qwen2-architecture language model from scratch."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM

from conf.errors import ConfigError
from conf.schema import BuildConfig, TransformerSize
from models.chat import IGNORED, Encoded, pad_id
from models.losses import weighted_loss
from models.miniature.batches import by_length
from models.miniature.corpus import Draw
from models.miniature.optimise import StepDone, fit
from models.miniature.tokenizer import MAX_LENGTH

# Wider than the customary .02, which is made for networks ten times as wide.
INITIAL_SPREAD = 0.06
# Qwen2.5's own value; a smaller one blurs attention by content over these short texts.
ROPE_THETA = 1_000_000.0
# Examples sorted by length before they are cut into batches, so that little is padding.
POOL = 512


def new_causal(
    size: TransformerSize, tokenizer: PreTrainedTokenizerBase, seed: int
) -> Qwen2ForCausalLM:
    """A network with random weights, tied embeddings, one key-value head per query head.

    Raises:
        ConfigError: If the heads do not divide the width into even parts.
    """
    check_heads("causal", size)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=size.width,
        intermediate_size=size.feed_forward,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads,
        max_position_embeddings=MAX_LENGTH,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        tie_word_embeddings=True,
        initializer_range=INITIAL_SPREAD,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen2ForCausalLM(config)


def check_heads(what: str, size: TransformerSize) -> None:
    """Refuse a width that the heads do not divide into even parts (rotary positions need pairs)."""
    if size.width % (2 * size.heads):
        raise ConfigError(
            f"model.build, {what} network: width must be a multiple of 2 x heads, got "
            f"{size.width} and {size.heads}"
        )


def train_causal(
    model: Qwen2ForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    draw: Draw,
    steps: int,
    config: BuildConfig,
    seed: int,
    on_step: StepDone,
) -> tuple[float, ...]:
    """Train ``model`` in float32 on examples of ``draw``. Returns one loss per step."""
    done = [0]
    pad = pad_id(tokenizer)

    def step_done(step: int) -> None:
        done[0] = step
        on_step(step)

    rng = random.Random(seed)
    batches = _batches(lambda: draw(rng, done[0] / steps), rng, config.tokens_per_batch)
    model.train()
    losses = fit(
        model, lambda: _loss(model, next(batches), pad), steps, config.learning_rate, step_done
    )
    model.eval()
    return losses


def _batches(
    draw: Callable[[], Encoded], rng: random.Random, tokens: int
) -> Iterator[list[Encoded]]:
    """Yield batches of at most ``tokens`` padded tokens, of examples of similar length."""
    while True:
        pool = [draw() for _ in range(POOL)]
        batches = by_length(pool, lambda example: len(example.input_ids), tokens)
        rng.shuffle(batches)
        yield from batches


def _loss(model: Qwen2ForCausalLM, batch: Sequence[Encoded], pad: int) -> Tensor:
    """Mean cross-entropy over the scored tokens; logits are computed for these alone."""
    ids, labels = _padded(batch, pad)  # (B, T) int64 both
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]  # (B, T-1, H)
    targets = labels[:, 1:]
    scored = targets != IGNORED
    # causal attention and padding on the right: no mask is needed
    states = hidden[scored]
    weights = torch.full((len(states),), 1 / len(states))
    return weighted_loss(states, model.lm_head, targets[scored], weights).total


def _padded(batch: Sequence[Encoded], pad: int) -> tuple[Tensor, Tensor]:
    width = max(len(example.input_ids) for example in batch)
    ids = [e.input_ids + [pad] * (width - len(e.input_ids)) for e in batch]
    labels = [e.labels + [IGNORED] * (width - len(e.labels)) for e in batch]
    return torch.tensor(ids), torch.tensor(labels)
