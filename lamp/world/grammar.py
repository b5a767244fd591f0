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
ORDER_SHARE = 0.3
# NLI pairs: how often only some of the facts are taken, how often the hypothesis leaves one out,
# and how often what no frame reads is kept.
EXCERPT_SHARE = 0.5
PART_SHARE = 0.25
STYLE_SHARE = 0.8


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
    return [word.rstrip(".,") for word in text.split()]


def change_fact(domain: Domain, fact: Fact, rng: random.Random) -> Fact:
    """The same frame with one slot's concept, or several, exchanged for another of its category."""
    concepts = list(fact.concepts)
    for slot in rng.sample(range(len(concepts)), rng.randint(1, len(concepts))):
        category, old = concepts[slot]
        others = [i for i in range(len(domain.lexicon[category])) if i != old]
        concepts[slot] = (category, rng.choice(others))
    return replace(fact, concepts=tuple(concepts))


@dataclass(frozen=True)
class Premise:
    """What one text says, for writing hypotheses about it.

    Attributes:
        domain: Domain of the text.
        facts: What the text states.
        words: Concept -> the word that the text has for it.
        lead: Sentences in front that no frame reads, such as a tweet's opening.
        tail: Such sentences at the end.
        spellings: Plain word -> the text's spelling of it.
    """

    domain: Domain
    facts: tuple[Fact, ...]
    words: Mapping[Concept, str]
    lead: tuple[str, ...]
    tail: tuple[str, ...]
    spellings: Mapping[str, str]

    def pair(
        self, label: Label, word_share: float, most_facts: int, rng: random.Random
    ) -> tuple[str, str]:
        """A (premise, hypothesis) pair of the given label.

        Args:
            label: What the pair is to be.
            word_share: So many of the words that both have are exchanged for synonyms.
            most_facts: The premise is about so many facts of the text at most.
            rng: Source of all choices.
        """
        facts = list(self.facts)
        rng.shuffle(facts)
        facts = facts[:most_facts]
        if rng.random() < EXCERPT_SHARE:
            facts = facts[: rng.randint(1, len(facts))]
        known, told = self._choose(label, facts, rng)
        return self._say(known, 0.0, rng), self._say(told, word_share, rng)

    def _choose(
        self, label: Label, facts: list[Fact], rng: random.Random
    ) -> tuple[list[Fact], list[Fact]]:
        """Facts of the premise and of the hypothesis."""
        if label == "contradiction":
            return facts, self._contradict(facts, rng)
        # a part of what is known, and for "neutral" a fact more: as long as an entailed text
        some = rng.sample(facts, max(1, len(facts) - (rng.random() < PART_SHARE)))
        if label == "entailment":
            return facts, some
        if len(facts) == 1:
            return facts, [self._news(facts, rng), *facts[: rng.randrange(2)]]
        known = rng.sample(facts, len(facts) - rng.randint(1, len(facts) // 2))
        unknown = [fact for fact in facts if fact not in known]
        return known, [*unknown, *rng.sample(known, rng.randint(len(known) - 1, len(known)))]

    def _contradict(self, facts: Sequence[Fact], rng: random.Random) -> list[Fact]:
        told = list(facts)
        least = (len(told) + 1) // 2
        for place in rng.sample(range(len(told)), rng.randint(least, len(told))):
            told[place] = change_fact(self.domain, told[place], rng)
        return told

    def _news(self, facts: Sequence[Fact], rng: random.Random) -> Fact:
        """A fact of another frame than ``facts``."""
        names = {fact.frame for fact in facts}
        frame = rng.choice([frame for frame in self.domain.frames if frame.name not in names])
        return Fact(frame.name, tuple(self.domain.draw(slot, rng) for slot in frame.slots))

    def _say(self, facts: Sequence[Fact], word_share: float, rng: random.Random) -> str:
        def choose(concept: Concept) -> str:
            own = self.words.get(concept)
            keep = own is not None and rng.random() >= word_share
            return own if own is not None and keep else rng.choice(self.domain.words(concept))

        said = []
        for fact in facts:
            pattern = rng.randrange(len(self.domain.frame_by_name[fact.frame].patterns))
            said.append(self.domain.say(fact, pattern, choose).text)
        rng.shuffle(said)
        if rng.random() < STYLE_SHARE:
            said = [*self.lead, *said, *self.tail]
        return spell(join(said), self.spellings)


def read_premise(domains: Sequence[Domain], text: str) -> Premise | None:
    """Read ``text`` as a premise; None when no domain finds a fact in it."""
    domain = best_domain(domains, text)
    sentences = read_text(domain, text)
    places = [i for i, sentence in enumerate(sentences) if sentence.fact is not None]
    if not places:
        return None
    return Premise(
        domain=domain,
        facts=tuple(facts_of(sentences)),
        words={domain.concept_of[w]: w for w in _bare_words(text) if w in domain.concept_of},
        lead=tuple(sentence.text for sentence in sentences[: places[0]]),
        tail=tuple(sentence.text for sentence in sentences[places[-1] + 1 :]),
        spellings=seen_spellings(domain, text),
    )
