"""What the miniatures learn from: the corpus users' records, as examples drawn without end.

The cloud learns the task's queries and pairs and the augmentation prompt; the device learns plain
text first of all, with a weaker taste of the tasks. What the cloud is to answer to the augmentation
prompt is the world's paraphrase where the world knows one, and elsewhere the most similar other
pair of the same user. Whichever it is, it replaces what a large pretrained model brings along.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from conf.errors import ConfigError, DataError
from conf.schema import BuildConfig
from lamp import world
from lamp.prompts import (
    augmentation_prompt,
    augmentation_reply,
    rewriting_prompt,
    rewriting_reply,
)
from lamp.records import Pair, Query, UserHistory
from lamp.similarity import most_similar
from lamp.tasks import Task, training_prompt
from models.chat import Encoded, encode_example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# One corpus user in so many is kept for the figures of the build's report.
HELD_OUT_EVERY = 20
MAX_TOKENS = 512
# Shares of the examples; what is left are queries.
CLOUD_AUGMENTATION = 0.8
CLOUD_PAIRS = 0.1
DEVICE_TEXT = 0.4
DEVICE_PAIRS = 0.25
# The cloud first learns to copy, over this share of its examples; from there it learns to reword.
COPY_SHARE = 0.2

Draw = Callable[[random.Random, float], Encoded]


@dataclass(frozen=True)
class Corpus:
    """Text of the corpus users, and the form of the task.

    Attributes:
        task: The task.
        users: Users to learn from.
        held_out: Users kept for the report.
        target: What the cloud learns to answer to the augmentation prompt.
    """

    task: Task
    users: tuple[UserHistory, ...]
    held_out: tuple[UserHistory, ...]
    target: str

    @cached_property
    def pairs(self) -> tuple[Pair, ...]:
        """All pairs to learn from."""
        return tuple(pair for user in self.users for pair in user.pairs)

    @cached_property
    def queries(self) -> tuple[Query, ...]:
        """All queries to learn from."""
        return tuple(query for user in self.users for query in user.queries)

    @cached_property
    def similar(self) -> dict[str, Pair]:
        """Pair id -> the most similar other pair of the same user, where there is one."""
        return {
            f"{user.user_id}/{pair.id}": other
            for user in self.users
            for pair in user.pairs
            if (other := most_similar(pair, user.pairs)) is not None
        }

    @cached_property
    def shown(self) -> tuple[tuple[Pair, Pair | None], ...]:
        """Pairs for the augmentation prompt, each with its fixed target; None is a paraphrase."""
        if self.target == "paraphrase":
            return tuple((pair, None) for pair in self.pairs)
        keyed = ((f"{user.user_id}/{pair.id}", pair) for user in self.users for pair in user.pairs)
        return tuple((pair, self.similar[key]) for key, pair in keyed if key in self.similar)

    def texts(self) -> list[str]:
        """Everything that the tokenizer should know, prompts included."""
        answers = [replace(pair, input=self._reworded(pair, 0)) for pair in self.pairs]
        return [
            *(augmentation_prompt(pair) for pair in answers),
            *("\n".join(training_prompt(self.task, pair)) for pair in self.pairs),
            *(f"{query.input}\n{query.gold}" for query in self.queries),
        ]

    def _reworded(self, pair: Pair, seed: int) -> str:
        return world.paraphrase(pair.input, seed) if self.target == "paraphrase" else pair.input


def make_corpus(task: Task, users: Sequence[UserHistory], config: BuildConfig) -> Corpus:
    """Set the held-out users apart and settle the augmentation target.

    Raises:
        ConfigError: If paraphrases are asked for and the data are not of the world.
        DataError: If the users have no records or no queries.
    """
    every = min(HELD_OUT_EVERY, len(users))
    held_out = tuple(users[::every]) if len(users) > 1 else tuple(users)
    learned = tuple(user for user in users if user not in held_out) or held_out
    corpus = Corpus(task, learned, held_out, _target(learned, config))
    if not corpus.shown or not corpus.queries:
        raise DataError(
            f"corpus users of {task.name}: expected records and queries to train the miniature "
            f"models on, got {len(corpus.shown)} usable records and {len(corpus.queries)} queries "
            "in all; lower model.build.holdout or take more data"
        )
    return corpus


def _target(users: Sequence[UserHistory], config: BuildConfig) -> str:
    known = world.knows([pair.input for user in users for pair in user.pairs[:1]])
    if config.augmentation_target == "paraphrase" and not known:
        raise ConfigError(
            "model.build.augmentation_target: expected 'similar' or 'auto' for data that are not "
            "of the miniature world, got 'paraphrase'; only the world knows paraphrases"
        )
    if config.augmentation_target == "auto":
        return "paraphrase" if known else "similar"
    return config.augmentation_target


def cloud_draw(corpus: Corpus, tokenizer: PreTrainedTokenizerBase) -> Draw:
    """Examples for the cloud; the second argument of a draw is the share of training done."""

    def draw(rng: random.Random, progress: float) -> Encoded:
        kind = rng.random()
        if kind < CLOUD_AUGMENTATION:
            pair, target = rng.choice(corpus.shown)
            reply = target or _paraphrase(pair, rng, progress)
            return _example(tokenizer, augmentation_prompt(pair), augmentation_reply(reply))
        if kind < CLOUD_AUGMENTATION + CLOUD_PAIRS:
            return _example(tokenizer, *training_prompt(corpus.task, rng.choice(corpus.pairs)))
        return _query_example(corpus, tokenizer, rng)

    return draw


def _paraphrase(pair: Pair, rng: random.Random, progress: float) -> Pair:
    """The pair in other words; early in training word for word: copying is learned first."""
    seed = rng.getrandbits(32)
    return (
        pair if progress < COPY_SHARE else replace(pair, input=world.paraphrase(pair.input, seed))
    )


def device_draw(
    corpus: Corpus, tokenizer: PreTrainedTokenizerBase, self_synthesis: float = 0.0
) -> Draw:
    """Examples for the device: plain text, pairs, queries, and a share that asks to rewrite."""

    def draw(rng: random.Random, progress: float) -> Encoded:
        if self_synthesis and rng.random() < self_synthesis:
            pair, target = rng.choice(corpus.shown)
            reply = rewriting_reply((target or _paraphrase(pair, rng, progress)).input)
            return _example(tokenizer, rewriting_prompt(pair.input), reply)
        kind = rng.random()
        if kind < DEVICE_TEXT:
            return _plain(tokenizer, rng.choice(corpus.pairs))
        if kind < DEVICE_TEXT + DEVICE_PAIRS:
            return _example(tokenizer, *training_prompt(corpus.task, rng.choice(corpus.pairs)))
        return _query_example(corpus, tokenizer, rng)

    return draw


def _query_example(
    corpus: Corpus, tokenizer: PreTrainedTokenizerBase, rng: random.Random
) -> Encoded:
    query = rng.choice(corpus.queries)
    return _example(tokenizer, query.input, query.gold)


def _example(tokenizer: PreTrainedTokenizerBase, prompt: str, completion: str) -> Encoded:
    return encode_example(tokenizer, prompt, completion, None, MAX_TOKENS)


def _plain(tokenizer: PreTrainedTokenizerBase, pair: Pair) -> Encoded:
    text = f"{pair.input} {pair.response}".strip()
    ids = tokenizer.encode(text, add_special_tokens=False)[: MAX_TOKENS - 1]
    ids.append(int(tokenizer.pad_token_id))
    return Encoded(ids, list(ids))
