"""A small language with a known meaning: texts are facts, facts have many wordings.

A *concept* is a set of synonyms; a *frame* is a set of sentence patterns that say the same about
their slots; a *fact* is a frame with one concept per slot. A text is a row of sentences, each the
wording of one fact. Since every word of a domain belongs to one concept, a sentence can be read
back into its fact: that is how :func:`paraphrase` rewords any text of the world and how
:func:`nli_pairs` knows what follows from what. Sentences that no frame reads stay as they are.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

Label = Literal["entailment", "neutral", "contradiction"]
Concept = tuple[str, int]  # (category, index within the category)
WordChoice = Callable[[Concept], str]

SLOT = re.compile(r"\{(\w+)\}")
# What a paraphrase changes: so many of the words, of the sentence patterns, of the orders.
WORD_SHARE = 0.4
PATTERN_SHARE = 0.4
ORDER_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Fact:
    """A frame with one concept per slot, in the order of the frame's slots."""

    frame: str
    concepts: tuple[Concept, ...]


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence of a text: its words, and its fact and pattern where a frame reads it."""

    text: str
    fact: Fact | None = None
    pattern: int = 0


@dataclass(frozen=True)
class Frame:
    """Sentence patterns of one meaning.

    Attributes:
        name: Unique within the domain.
        patterns: Wordings such as "the {motif} changes everything"; all have the same slots.
    """

    name: str
    patterns: tuple[str, ...]

    @cached_property
    def slots(self) -> tuple[str, ...]:
        """Categories of the slots, in the order of the first pattern."""
        return tuple(SLOT.findall(self.patterns[0]))


@dataclass(frozen=True)
class Domain:
    """Words and frames of one kind of text.

    Attributes:
        name: What the texts are about.
        lexicon: Category -> concepts -> synonyms; every word occurs once in the whole domain.
        frames: All sentence patterns.
        spellings: Plain word -> other ways to write it; a style, not a meaning.
    """

    name: str
    lexicon: Mapping[str, tuple[tuple[str, ...], ...]]
    frames: tuple[Frame, ...]
    spellings: Mapping[str, tuple[str, ...]]

    @cached_property
    def concept_of(self) -> Mapping[str, Concept]:
        """Word -> its concept."""
        return {
            word: (category, index)
            for category, concepts in self.lexicon.items()
            for index, words in enumerate(concepts)
            for word in words
        }

    @cached_property
    def plain_spelling(self) -> Mapping[str, str]:
        """Other spelling -> plain word."""
        return {other: plain for plain, others in self.spellings.items() for other in others}

    @cached_property
    def frame_by_name(self) -> Mapping[str, Frame]:
        """Frame name -> frame."""
        return {frame.name: frame for frame in self.frames}

    @cached_property
    def skeletons(self) -> Mapping[str, tuple[str, int]]:
        """Pattern with bare slots -> (frame name, pattern index)."""
        return {
            pattern: (frame.name, index)
            for frame in self.frames
            for index, pattern in enumerate(frame.patterns)
        }

    def words(self, concept: Concept) -> tuple[str, ...]:
        """Synonyms of ``concept``."""
        return self.lexicon[concept[0]][concept[1]]

    def draw(self, category: str, rng: random.Random) -> Concept:
        """A uniformly drawn concept of ``category``."""
        return category, rng.randrange(len(self.lexicon[category]))

    def any_word(self, rng: random.Random) -> WordChoice:
        """A choice that takes any synonym."""
        return lambda concept: rng.choice(self.words(concept))

    def say(self, fact: Fact, pattern: int, choose: WordChoice) -> Sentence:
        """Word ``fact`` with one pattern and a choice among synonyms."""
        frame = self.frame_by_name[fact.frame]
        words = {
            slot: choose(concept) for slot, concept in zip(frame.slots, fact.concepts, strict=True)
        }
        return Sentence(frame.patterns[pattern].format(**words), fact, pattern)

    def say_anyhow(self, fact: Fact, rng: random.Random) -> Sentence:
        """Word ``fact`` with any pattern and any synonyms."""
        pattern = rng.randrange(len(self.frame_by_name[fact.frame].patterns))
        return self.say(fact, pattern, self.any_word(rng))

    def read(self, sentence: str) -> Sentence:
        """Find the fact that ``sentence`` states; without one it is kept as plain text."""
        slots: dict[str, Concept] = {}
        skeleton = []
        for word in sentence.split():
            bare = word.rstrip(",")
            concept = self.concept_of.get(bare)
            if concept is None:
                skeleton.append(self.plain_spelling.get(bare, bare) + word[len(bare) :])
            else:
                slots[concept[0]] = concept
                skeleton.append(f"{{{concept[0]}}}" + word[len(bare) :])
        found = self.skeletons.get(" ".join(skeleton))
        if found is None:
            return Sentence(sentence)
        name, pattern = found
        concepts = tuple(slots[slot] for slot in self.frame_by_name[name].slots)
        return Sentence(sentence, Fact(name, concepts), pattern)


def join(sentences: Iterable[str]) -> str:
    """Write sentences as one text."""
    return ". ".join(sentences) + "."


def split(text: str) -> list[str]:
    """Cut a text into sentences; the inverse of :func:`join` up to white space."""
    return [part.strip() for part in text.rstrip(". ").split(". ") if part.strip()]


def read_text(domain: Domain, text: str) -> list[Sentence]:
    """Read every sentence of ``text``."""
    return [domain.read(sentence) for sentence in split(text)]


def best_domain(domains: Sequence[Domain], text: str) -> Domain:
    """The domain whose frames read most of ``text``; the first one on a tie."""
    return max(domains, key=lambda domain: len(facts_of(read_text(domain, text))))


def facts_of(sentences: Iterable[Sentence]) -> list[Fact]:
    """The facts that were read, in order."""
    return [sentence.fact for sentence in sentences if sentence.fact is not None]


def seen_spellings(domain: Domain, text: str) -> dict[str, str]:
    """Plain word -> the other spelling that ``text`` has for it."""
    words = (word.rstrip(".,") for word in text.split())
    return {domain.plain_spelling[word]: word for word in words if word in domain.plain_spelling}


def spell(text: str, spellings: Mapping[str, str]) -> str:
    """Write plain words of ``text`` as ``spellings`` has them."""
    return " ".join(_spell_word(word, spellings) for word in text.split())


def _spell_word(word: str, spellings: Mapping[str, str]) -> str:
    bare = word.rstrip(".,")
    return spellings.get(bare, bare) + word[len(bare) :]


def paraphrase(domains: Sequence[Domain], text: str, rng: random.Random) -> str:
    """Say ``text`` in other words: synonyms, other patterns, another order; the facts stay.

    What no frame reads (an opening, a hashtag) and the writer's spelling stay as they are. A
    paraphrase may come close to its text; how close is a matter of chance.
    """
    domain = best_domain(domains, text)
    sentences = read_text(domain, text)
    places = [i for i, sentence in enumerate(sentences) if sentence.fact is not None]
    order = list(places)
    if rng.random() < ORDER_SHARE:
        rng.shuffle(order)
    result = [sentence.text for sentence in sentences]
    for place, source in zip(places, order, strict=True):
        result[place] = _reword(domain, sentences[source], rng).text
    return spell(join(result), seen_spellings(domain, text))


def _reword(domain: Domain, sentence: Sentence, rng: random.Random) -> Sentence:
    fact = sentence.fact
    if fact is None:
        return sentence
    words = {domain.concept_of[w]: w for w in _bare_words(sentence.text) if w in domain.concept_of}

    def choose(concept: Concept) -> str:
        others = [word for word in domain.words(concept) if word != words[concept]]
        keep = not others or rng.random() >= WORD_SHARE
        return words[concept] if keep else rng.choice(others)

    patterns = len(domain.frame_by_name[fact.frame].patterns)
    pattern = rng.randrange(patterns) if rng.random() < PATTERN_SHARE else sentence.pattern
    return domain.say(fact, pattern, choose)


def _bare_words(text: str) -> list[str]:
    return [word.rstrip(",") for word in text.split()]


def change_fact(domain: Domain, fact: Fact, rng: random.Random) -> Fact:
    """The same frame with one slot's concept exchanged for another of its category."""
    slot = rng.randrange(len(fact.concepts))
    category, old = fact.concepts[slot]
    new = rng.choice([i for i in range(len(domain.lexicon[category])) if i != old])
    concepts = list(fact.concepts)
    concepts[slot] = (category, new)
    return replace(fact, concepts=tuple(concepts))


@dataclass(frozen=True)
class Premise:
    """What one text says, for writing hypotheses about it."""

    domain: Domain
    text: str
    facts: tuple[Fact, ...]

    def hypothesis(self, label: Label, rng: random.Random) -> tuple[str, str]:
        """A (premise, hypothesis) pair of the given label; see :func:`nli_pairs`."""
        if label == "entailment":
            return self._entailed(rng)
        if label == "contradiction":
            return self._contradicted(rng)
        return self._open(rng)

    def _entailed(self, rng: random.Random) -> tuple[str, str]:
        if len(self.facts) > 1 and rng.random() < 0.25:
            fewer = rng.sample(self.facts, len(self.facts) - 1)
            return self.text, self._say(fewer, rng)
        return self.text, paraphrase((self.domain,), self.text, rng)

    def _contradicted(self, rng: random.Random) -> tuple[str, str]:
        facts = list(self.facts)
        for place in rng.sample(range(len(facts)), rng.choice((1, 1, len(facts)))):
            facts[place] = change_fact(self.domain, facts[place], rng)
        return self.text, self._reworded(facts, rng)

    def _open(self, rng: random.Random) -> tuple[str, str]:
        """The hypothesis tells something on which the premise is silent."""
        if len(self.facts) == 1:
            return self.text, self._say([*self.facts, self._news(rng)], rng)
        silent = rng.randint(1, max(1, len(self.facts) // 2))
        known = rng.sample(self.facts, len(self.facts) - silent)
        return self._say(known, rng), paraphrase((self.domain,), self.text, rng)

    def _news(self, rng: random.Random) -> Fact:
        names = {fact.frame for fact in self.facts}
        frame = rng.choice([frame for frame in self.domain.frames if frame.name not in names])
        return Fact(frame.name, tuple(self.domain.draw(slot, rng) for slot in frame.slots))

    def _say(self, facts: Sequence[Fact], rng: random.Random) -> str:
        return join(self.domain.say_anyhow(fact, rng).text for fact in facts)

    def _reworded(self, facts: Sequence[Fact], rng: random.Random) -> str:
        return paraphrase((self.domain,), self._say(facts, rng), rng)


def read_premise(domains: Sequence[Domain], text: str) -> Premise | None:
    """Read ``text`` as a premise; None when no domain finds a fact in it."""
    domain = best_domain(domains, text)
    facts = tuple(facts_of(read_text(domain, text)))
    return Premise(domain, text, facts) if facts else None
