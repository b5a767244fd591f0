"""Canaries: records of random words, put into D_u at set-up, whose text nobody could guess.

A canary is a key and a value, both drawn as pronounceable strings of random letters, which are no
words of any language or vocabulary; or, where a cloud model is to be able to write them, as words
that public users write, in an order that nobody does (``privacy.canary_words``). The key is a
record's input and the value its response; where a task takes labels as responses the value is a
label, and where it has none both are the input. Whether a canary is shared is decided like any
record's: by the user's own order and ratio.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, replace

from conf.errors import ConfigError
from conf.seeds import derive_seed
from lamp.records import Pair, ProfileItem, UserHistory
from lamp.tasks import Task, make_pair

PREFIX = "canary-"
ALTERNATIVES = 255  # with the canary itself 256: an exposure of at most 8 bits
KEY_WORDS = 4
VALUE_WORDS = 3
FEWEST_WORDS = 50
_SYLLABLES = 3
_CONSONANTS = "bdfghjklmnpqrstvwxz"
_VOWELS = "aeiouy"
_NO_CUT = 1_000_000


@dataclass(frozen=True, slots=True)
class Canary:
    """One canary of one user, as whoever planted it knows it.

    Attributes:
        id: Record id.
        key: Words that an attacker may know.
        value: What an attacker would have to guess.
        date: Date of the record; None where the data has none.
    """

    id: str
    key: str
    value: str
    date: str | None = None

    @property
    def words(self) -> tuple[str, ...]:
        """All random words."""
        return tuple(f"{self.key} {self.value}".split())

    def item(self, task: Task) -> ProfileItem:
        """The profile item."""
        if not task.response_field:
            return ProfileItem(self.id, {task.input_field: f"{self.key} {self.value}"}, self.date)
        fields = {task.input_field: self.key, task.response_field: self.value}
        return ProfileItem(self.id, fields, self.date)

    def pair(self, task: Task) -> Pair:
        """The record of D_u."""
        return make_pair(task, self.item(task), _NO_CUT)


def vocabulary(kind: str, public: Iterable[UserHistory]) -> tuple[str, ...]:
    """The words that canaries are made of, sorted; none for random letters.

    Raises:
        ConfigError: If the public users write too few words to make different canaries.
    """
    if kind == "random":
        return ()
    texts = (text for user in public for pair in user.pairs for text in (pair.input, pair.response))
    found = sorted({word for text in texts for word in words_of(text)})
    if len(found) < FEWEST_WORDS:
        raise ConfigError(
            f"privacy.canary_words=public: expected {FEWEST_WORDS} words in the public users' "
            f"records, got {len(found)}; take privacy.canary_words=random"
        )
    return tuple(found)


def words_of(text: str) -> list[str]:
    """The words of a text: letters alone, lower case."""
    return "".join(letter if letter.isalpha() else " " for letter in text.lower()).split()


def plant(
    history: UserHistory, task: Task, number: int, seed: int, words: tuple[str, ...] = ()
) -> UserHistory:
    """Put ``number`` canaries of ``words`` behind the user's own records."""
    date = history.profile[-1].date if history.profile else None
    canaries = canaries_of(history.user_id, task, number, seed, words, date)
    return replace(
        history,
        profile=(*history.profile, *(canary.item(task) for canary in canaries)),
        pairs=(*history.pairs, *(canary.pair(task) for canary in canaries)),
    )


def canaries_of(
    user_id: str,
    task: Task,
    number: int,
    seed: int,
    words: tuple[str, ...] = (),
    date: str | None = None,
) -> tuple[Canary, ...]:
    """The canaries of one user, the same whenever they are asked for.

    Args:
        user_id: Whose canaries.
        task: The task.
        number: How many.
        seed: The run's root seed.
        words: What they are made of (:func:`vocabulary`); none makes them of random letters.
        date: Date of the records.
    """
    made = []
    for place in range(number):
        draw = random.Random(derive_seed(seed, user_id, "canary", place))
        key, value = _words(draw, KEY_WORDS, words), _value(draw, task, words)
        made.append(Canary(f"{PREFIX}{place}", key, value, date))
    return tuple(made)


def alternatives(
    canary: Canary, user_id: str, task: Task, seed: int, words: tuple[str, ...] = ()
) -> tuple[Canary, ...]:
    """The same key with other values, drawn as the canary's own was; for labels all the others."""
    if task.pair_labels:
        return tuple(
            replace(canary, value=label) for label in task.pair_labels if label != canary.value
        )
    draw = random.Random(derive_seed(seed, user_id, "alternatives", canary.id))
    return tuple(replace(canary, value=_value(draw, task, words)) for _ in range(ALTERNATIVES))


def strangers(
    canary: Canary, user_id: str, seed: int, words: tuple[str, ...] = ()
) -> tuple[tuple[str, ...], ...]:
    """Word lists drawn as the canary's own was, that stand in nobody's records."""
    draw = random.Random(derive_seed(seed, user_id, "strangers", canary.id))
    number = len(canary.words)
    return tuple(tuple(_words(draw, number, words).split(" ")) for _ in range(ALTERNATIVES))


def is_canary(record_id: str) -> bool:
    """Whether a record of D_u is a canary."""
    return record_id.startswith(PREFIX)


def _value(draw: random.Random, task: Task, words: tuple[str, ...]) -> str:
    return draw.choice(task.pair_labels) if task.pair_labels else _words(draw, VALUE_WORDS, words)


def _words(draw: random.Random, number: int, words: tuple[str, ...]) -> str:
    if words:
        return " ".join(draw.choices(words, k=number))
    return " ".join(
        "".join(draw.choice(_CONSONANTS) + draw.choice(_VOWELS) for _ in range(_SYLLABLES))
        for _ in range(number)
    )
