"""LaMP-3 in the world: one opinion per aspect; strictness and priorities make the stars."""

from __future__ import annotations

import random
from dataclasses import dataclass

from lamp.world.grammar import Concept, Domain, Fact, Frame, join
from lamp.world.person import Record, concepts

QUESTION = (
    "What is the score of the following review on a scale of 1 to 5? just answer with 1, 2, 3, 4, "
    "or 5 without further explanation. review: {text}"
)
# Levels of the opinion concepts below, two concepts each.
LEVELS = (-2, -2, -1, -1, 0, 0, 1, 1, 2, 2)
STARS_PER_LEVEL = 1.1

_OPINIONS = concepts(
    "awful dreadful horrible | disgusting revolting nasty | poor weak mediocre"
    " | disappointing underwhelming lacking | okay passable tolerable | average ordinary plain"
    " | good nice pleasant | decent solid fine | superb excellent wonderful"
    " | perfect flawless ideal"
)
_ASPECTS = concepts(
    "taste flavor savor | texture consistency feel | smell aroma scent | price cost pricing"
    " | portion size amount | value worth bargain | package packaging wrapping"
    " | delivery shipping shipment"
)

DOMAIN = Domain(
    name="reviews",
    lexicon={
        "product": concepts(
            "coffee espresso mocha | tea chai matcha | cookies biscuits crackers"
            " | pasta noodles spaghetti | sauce gravy dressing | cereal granola muesli"
            " | candy sweets toffee | soup broth stew | jam jelly marmalade | bread toast buns"
        ),
        "reason": concepts(
            "breakfast brunch morning | dinner supper evening | guests visitors company"
            " | office work job | picnic hiking camping | kids children toddlers"
        ),
        "aspect": _ASPECTS,
        "opinion": _OPINIONS,
    },
    frames=(
        Frame(
            "bought",
            (
                "i bought some {product} for {reason}",
                "we got the {product} for {reason}",
                "for {reason} i ordered that {product}",
            ),
        ),
        Frame(
            "opinion",
            (
                "the {aspect} is {opinion}",
                "i find the {aspect} {opinion}",
                "{opinion} is the word for the {aspect}",
            ),
        ),
    ),
    spellings={},
)


@dataclass(frozen=True)
class Reviewer:
    """A user who rates groceries.

    Attributes:
        strictness: Stars added to every review.
        priority: Aspect index -> weight in the rating.
        calibration: Opinion index -> what its words mean to this user, in levels.
    """

    strictness: float
    priority: tuple[float, ...]
    calibration: tuple[float, ...]

    def record(self, rng: random.Random) -> Record:
        """A review and this user's stars for it."""
        mood = rng.gauss(0, 1.2)
        aspects = rng.sample(range(len(self.priority)), 3)
        opinions = [self._opinion(mood, rng) for _ in aspects]
        facts = [Fact("bought", (DOMAIN.draw("product", rng), DOMAIN.draw("reason", rng)))]
        facts += [self._fact(a, o) for a, o in zip(aspects, opinions, strict=True)]
        body = facts[1:]
        rng.shuffle(body)
        text = join(DOMAIN.say_anyhow(fact, rng).text for fact in [facts[0], *body])
        stars = str(self._stars(aspects, opinions))
        return Record({"text": text, "score": stars}, QUESTION.format(text=text), stars)

    @staticmethod
    def _opinion(mood: float, rng: random.Random) -> int:
        level = max(-2, min(2, round(mood + rng.gauss(0, 0.9))))
        return rng.choice([i for i, value in enumerate(LEVELS) if value == level])

    @staticmethod
    def _fact(aspect: int, opinion: int) -> Fact:
        slots: tuple[Concept, Concept] = (("aspect", aspect), ("opinion", opinion))
        return Fact("opinion", slots)

    def _stars(self, aspects: list[int], opinions: list[int]) -> int:
        weights = [self.priority[a] for a in aspects]
        felt = sum(w * self.calibration[o] for w, o in zip(weights, opinions, strict=True))
        stars = 3 + self.strictness + STARS_PER_LEVEL * felt / sum(weights)
        return max(1, min(5, round(stars)))


def make_person(rng: random.Random) -> Reviewer:
    """A reviewer: some strict, some mild, each with their own priorities and words."""
    strictness = rng.choice((-1.2, -0.6, 0.0, 0.6, 1.2))
    count = len(DOMAIN.lexicon["aspect"])
    priority = tuple(rng.gammavariate(0.7, 1.0) + 0.05 for _ in range(count))
    calibration = tuple(level + rng.gauss(0, 0.4) for level in LEVELS)
    return Reviewer(strictness, priority, calibration)
