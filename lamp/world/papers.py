"""LaMP-1 and LaMP-5 in the world: papers in a scholar's own fields, titles in their own style."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace

from lamp.world.grammar import Concept, Domain, Fact, Frame, WordChoice, join
from lamp.world.person import (
    Record,
    Vocabulary,
    concepts,
    habit,
    make_vocabulary,
    weighted_sample,
)

TITLE_QUESTION = "Generate a title for the following abstract of a paper: {text}"
CITATION_QUESTION = (
    'For an author who has written the paper with the title "{title}", which reference is '
    'related? Just answer with [1] or [2] without explanation. [1]: "{first}" [2]: "{second}"'
)

DOMAIN = Domain(
    name="papers",
    lexicon={
        "problem": concepts(
            "routing navigation pathfinding | scheduling planning timetabling"
            " | clustering grouping partitioning | forecasting prediction extrapolation"
            " | compression coding shrinking | detection discovery spotting"
            " | translation conversion rewriting | ranking sorting ordering"
            " | segmentation slicing splitting | retrieval search lookup"
        ),
        "field": concepts(
            "medicine healthcare clinics | traffic transport mobility | finance banking markets"
            " | farming agriculture crops | energy power electricity | education schooling teaching"
            " | genetics genomics heredity | climate weather atmosphere | law justice legislation"
            " | robotics automation machines"
        ),
        "method": concepts(
            "networks perceptrons connectionism | trees forests branches | kernels margins vectors"
            " | sampling drawing montecarlo | logic reasoning inference | games auctions bidding"
            " | evolution mutation breeding | graphs nodes lattices | wavelets fourier spectra"
            " | rules heuristics recipes"
        ),
        "gain": concepts(
            "fast quick rapid | robust stable reliable | accurate precise exact"
            " | cheap economical frugal | private confidential secure | simple easy plain"
        ),
        "data": concepts(
            "simulations models replicas | surveys interviews questionnaires"
            " | sensors probes detectors | archives records logs | images photos pictures"
            " | benchmarks suites testbeds"
        ),
    },
    frames=(
        Frame(
            "topic",
            (
                "we study {problem} in {field}",
                "in {field} the question of {problem} is open",
                "this work treats {problem} for {field}",
            ),
        ),
        Frame(
            "approach",
            (
                "our approach is based on {method}",
                "{method} form the basis of our approach",
                "we rely on {method}",
            ),
        ),
        Frame(
            "result",
            (
                "the outcome is {gain}",
                "we get {gain} results",
                "it proves to be {gain}",
            ),
        ),
        Frame(
            "evidence",
            (
                "tests use {data}",
                "we test it with {data}",
                "evidence comes from {data}",
            ),
        ),
    ),
    spellings={},
)
OPENERS = ("", "towards", "on", "rethinking", "notes on", "understanding", "beyond", "revisiting")
CORES = ("{problem} with {method}", "{method} for {problem}", "{problem}: the case for {method}")
ANGLES = {
    "field": ("in {field}", "applied to {field}"),
    "gain": ("made {gain}", "that is {gain}"),
    "data": ("from {data}", "using {data}"),
    "none": ("", ""),
}
CLOSERS = ("", ": a survey", ": a case study", ": an essay", ", revisited", ": first steps")


@dataclass(frozen=True)
class Scholar:
    """A user who writes papers.

    Attributes:
        vocabulary: Favourite words.
        interest: Category -> weight of each of its concepts in the scholar's work.
        opener: What a title starts with.
        core: Pattern of problem and method.
        angles: Field -> the one detail that gets into the title, and its pattern.
        closer: What a title ends with.
    """

    vocabulary: Vocabulary
    interest: Mapping[str, tuple[float, ...]]
    opener: str
    core: str
    angles: tuple[tuple[str, int], ...]
    closer: str

    def paper(self, rng: random.Random) -> tuple[str, str]:
        """An abstract in anybody's words and its title in this scholar's."""
        facts = [self._draw(frame, rng) for frame in DOMAIN.frames]
        content: dict[str, Concept] = {c[0]: c for fact in facts for c in fact.concepts}
        rng.shuffle(facts)
        abstract = join(DOMAIN.say_anyhow(fact, rng).text for fact in facts)
        return abstract, self._title(content, rng)

    def _draw(self, frame: Frame, rng: random.Random) -> Fact:
        return Fact(frame.name, tuple(self._concept(slot, rng) for slot in frame.slots))

    def _concept(self, category: str, rng: random.Random) -> Concept:
        weights = self.interest[category]
        return category, weighted_sample(range(len(weights)), weights, 1, rng)[0]

    def _title(self, content: Mapping[str, Concept], rng: random.Random) -> str:
        angle, wording = self.angles[content["field"][1]]
        parts = (
            habit(OPENERS, self.opener, rng),
            habit(CORES, self.core, rng),
            ANGLES[angle][wording],
        )
        choose: WordChoice = self.vocabulary.choose(rng)
        words = {category: choose(concept) for category, concept in content.items()}
        title = " ".join(part for part in parts if part).format(**words)
        return title + habit(CLOSERS, self.closer, rng)


@dataclass(frozen=True)
class TitleWriter:
    """A LaMP-5 user."""

    scholar: Scholar

    def record(self, rng: random.Random) -> Record:
        """A paper; the question asks for its title."""
        abstract, title = self.scholar.paper(rng)
        fields = {"title": title, "abstract": abstract}
        return Record(fields, TITLE_QUESTION.format(text=abstract), title)


@dataclass(frozen=True)
class Citer:
    """A LaMP-1 user: cites what others, in their own words, write about the user's interests."""

    scholar: Scholar

    def record(self, rng: random.Random) -> Record:
        """A paper; the question asks which of two others its author would refer to."""
        abstract, title = self.scholar.paper(rng)
        colleague, stranger = make_scholar(rng), make_scholar(rng)
        _, related = replace(colleague, interest=self.scholar.interest).paper(rng)
        _, foreign = stranger.paper(rng)
        place = rng.randrange(2)
        first, second = (related, foreign) if place == 0 else (foreign, related)
        question = CITATION_QUESTION.format(title=title, first=first, second=second)
        return Record({"title": title, "abstract": abstract}, question, f"[{place + 1}]")


def make_scholar(rng: random.Random) -> Scholar:
    """A scholar with skewed interests, own words and habits."""
    interest = {
        category: tuple(rng.gammavariate(0.4, 1.0) + 0.02 for _ in entries)
        for category, entries in DOMAIN.lexicon.items()
    }
    fields = len(DOMAIN.lexicon["field"])
    angles = tuple((rng.choice(tuple(ANGLES)), rng.randrange(2)) for _ in range(fields))
    return Scholar(
        make_vocabulary(DOMAIN, rng),
        interest,
        rng.choice(OPENERS),
        rng.choice(CORES),
        angles,
        rng.choice(CLOSERS),
    )


def make_title_writer(rng: random.Random) -> TitleWriter:
    """A LaMP-5 user."""
    return TitleWriter(make_scholar(rng))


def make_citer(rng: random.Random) -> Citer:
    """A LaMP-1 user."""
    return Citer(make_scholar(rng))
