"""LaMP-1 and LaMP-5 in the world: papers in a scholar's own fields, titles in their own style."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from lamp.world.grammar import Concept, Domain, Fact, Frame, WordChoice, join
from lamp.world.person import Record, Vocabulary, concepts, habit, make_vocabulary

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
            "aside",
            (
                "we also touch on {problem}",
                "{problem} comes up too",
                "a second theme is {problem}",
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


# Some problems are in fashion: the first ones of the lexicon. Scholars follow that, each in part.
FASHION = 1.2
OWN_MIND = 1.2


@dataclass(frozen=True)
class Scholar:
    """A user who writes papers.

    Attributes:
        vocabulary: Favourite words.
        interest: Problem index -> how much the scholar cares; of two problems the dearer one gets
            into the title, and work on it is what the scholar refers to.
        opener: What a title starts with.
        core: Pattern of problem and method.
        angles: Field -> the one detail that gets into the title, and its pattern.
        closer: What a title ends with.
    """

    vocabulary: Vocabulary
    interest: tuple[float, ...]
    opener: str
    core: str
    angles: tuple[tuple[str, int], ...]
    closer: str

    def paper(self, rng: random.Random) -> tuple[str, str]:
        """An abstract in anybody's words and its title in this scholar's."""
        topic, aside = rng.sample(range(len(self.interest)), 2)
        content = {slot: DOMAIN.draw(slot, rng) for slot in ("field", "method", "gain", "data")}
        facts = [
            Fact("topic", (("problem", topic), content["field"])),
            Fact("aside", (("problem", aside),)),
            Fact("approach", (content["method"],)),
            Fact("result", (content["gain"],)),
            Fact("evidence", (content["data"],)),
        ]
        rng.shuffle(facts)
        abstract = join(DOMAIN.say_anyhow(fact, rng).text for fact in facts)
        return abstract, self.title(content | {"problem": self.dearer(topic, aside)}, rng)

    def dearer(self, first: int, second: int) -> Concept:
        """The one of two problems that the scholar cares more about."""
        return "problem", max(first, second, key=lambda problem: self.interest[problem])

    def title(self, content: Mapping[str, Concept], rng: random.Random) -> str:
        """A title in this scholar's words and habits."""
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
    """A LaMP-1 user: of two papers by others, refers to the one on the dearer problem."""

    scholar: Scholar

    def record(self, rng: random.Random) -> Record:
        """A paper; the question asks which of two others its author would refer to."""
        abstract, title = self.scholar.paper(rng)
        problems = rng.sample(range(len(self.scholar.interest)), 2)
        first, second = (_title_by_anybody(problem, rng) for problem in problems)
        answer = "[1]" if self.scholar.dearer(*problems)[1] == problems[0] else "[2]"
        question = CITATION_QUESTION.format(title=title, first=first, second=second)
        return Record({"title": title, "abstract": abstract}, question, answer)


def _title_by_anybody(problem: int, rng: random.Random) -> str:
    content = {slot: DOMAIN.draw(slot, rng) for slot in ("field", "method", "gain", "data")}
    return make_scholar(rng).title(content | {"problem": ("problem", problem)}, rng)


def make_scholar(rng: random.Random) -> Scholar:
    """A scholar with own interests, words and habits."""
    problems, fields = (len(DOMAIN.lexicon[category]) for category in ("problem", "field"))
    fashion = [FASHION * (1 - 2 * i / (problems - 1)) for i in range(problems)]
    angles = tuple((rng.choice(tuple(ANGLES)), rng.randrange(2)) for _ in range(fields))
    return Scholar(
        vocabulary=make_vocabulary(DOMAIN, rng),
        interest=tuple(value + rng.gauss(0, OWN_MIND) for value in fashion),
        opener=rng.choice(OPENERS),
        core=rng.choice(CORES),
        angles=angles,
        closer=rng.choice(CLOSERS),
    )


def make_title_writer(rng: random.Random) -> TitleWriter:
    """A LaMP-5 user."""
    return TitleWriter(make_scholar(rng))


def make_citer(rng: random.Random) -> Citer:
    """A LaMP-1 user."""
    return Citer(make_scholar(rng))
