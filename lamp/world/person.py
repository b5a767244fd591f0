"""What all people of the world have in common: they produce records, in words of their own."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Protocol, TypeVar

from lamp.world.grammar import Concept, Domain, WordChoice

# How often people do what they usually do: own words, own pattern, own opening.
HABIT = 0.9
# How often a favourite word is that of the person's register; the others are the long tail that
# only a long history shows.
REGISTER_SHARE = 0.6
REGISTERS = 3

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Record:
    """One thing a person wrote, as a profile item and as the question it could be.

    Attributes:
        fields: Text fields of the official profile item.
        question: Official prompt.
        answer: Official gold answer.
    """

    fields: Mapping[str, str]
    question: str
    answer: str


class Person(Protocol):
    """A user of the world."""

    def record(self, rng: random.Random) -> Record:
        """One more record of this person."""
        ...


def concepts(text: str) -> tuple[tuple[str, ...], ...]:
    """Read "robot android | rocket starship" as two concepts with two words each."""
    return tuple(tuple(words.split()) for words in text.split("|"))


def weighted_sample(
    items: Sequence[T], weights: Sequence[float], count: int, rng: random.Random
) -> list[T]:
    """Draw ``count`` different items, likelier ones first (Efraimidis and Spirakis, 2006)."""
    keys = [rng.random() ** (1 / weight) for weight in weights]
    order = sorted(range(len(items)), key=lambda i: -keys[i])
    return [items[i] for i in order[:count]]


def habit(options: Sequence[T], usual: T, rng: random.Random) -> T:
    """What a person does this time: mostly the usual."""
    return usual if rng.random() < HABIT else rng.choice(options)


@dataclass(frozen=True)
class Vocabulary:
    """A person's favourite word for every concept of a domain."""

    domain: Domain
    favourites: Mapping[Concept, str]

    @property
    def register(self) -> int:
        """The place among the synonyms of a concept at which most favourites stand."""
        places = [
            self.domain.words(concept).index(word) for concept, word in self.favourites.items()
        ]
        return max(range(REGISTERS), key=places.count)

    def choose(self, rng: random.Random) -> WordChoice:
        """Mostly the favourite word."""
        return lambda c: habit(self.domain.words(c), self.favourites[c], rng)


def make_vocabulary(domain: Domain, rng: random.Random) -> Vocabulary:
    """Favourites of one person: the words of one register, with exceptions."""
    register = rng.randrange(REGISTERS)
    favourites = {}
    for category, entries in domain.lexicon.items():
        for index, words in enumerate(entries):
            usual = words[register % len(words)]
            own = usual if rng.random() < REGISTER_SHARE else rng.choice(words)
            favourites[category, index] = own
    return Vocabulary(domain, favourites)


def altered(old: Any, new: Any, share: float, rng: random.Random) -> Any:
    """``old`` with each of its traits exchanged for ``new``'s with probability ``share``.

    Args:
        old: A person; or a part of one: a record, mapping or tuple down to its single traits.
        new: Another person of the same kind.
        share: Probability for each trait.
        rng: Source of all choices.
    """
    if isinstance(old, Domain):  # common to all persons
        return old
    if isinstance(old, Mapping):
        return _altered_mapping(old, new, share, rng)
    if isinstance(old, tuple):
        return tuple(altered(*parts, share, rng) for parts in zip(old, new, strict=True))
    if is_dataclass(old) and not isinstance(old, type):
        traits = {
            field.name: altered(getattr(old, field.name), getattr(new, field.name), share, rng)
            for field in fields(old)
        }
        return replace(old, **traits)
    return new if rng.random() < share else old


def _altered_mapping(
    old: Mapping[Any, Any], new: Mapping[Any, Any], share: float, rng: random.Random
) -> dict[Any, Any]:
    """Exchange value by value; what only one of the two has may come or go."""
    found = {}
    for key in dict.fromkeys((*old, *new)):
        if key in old and key in new:
            found[key] = altered(old[key], new[key], share, rng)
            continue
        kept = old if rng.random() >= share else new
        if key in kept:
            found[key] = kept[key]
    return found
