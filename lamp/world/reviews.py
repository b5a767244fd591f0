"""LaMP-3 in the world: one opinion per aspect; strictness and priorities make the stars."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lamp.world.grammar import Concept, Domain, Fact, Frame, facts_of, join, read_text
from lamp.world.person import Record, concepts

QUESTION = (
    "What is the score of the following review on a scale of 1 to 5? just answer with 1, 2, 3, 4, "
    "or 5 without further explanation. review: {text}"
)
# Opinions on each aspect, from the worst to the best.
ASPECTS: Mapping[str, str] = {
    "taste": "disgusting revolting nasty | bland dull flat | edible passable tolerable"
    " | tasty flavorful savory | delicious scrumptious heavenly",
    "price": "outrageous extortionate shameless | expensive costly pricey | normal average usual"
    " | fair reasonable moderate | cheap inexpensive thrifty",
    "delivery": "lost missing astray | late delayed overdue | punctual scheduled timely"
    " | quick fast speedy | instant immediate lightning",
    "packing": "crushed smashed wrecked | torn ripped dented | plain simple basic"
    " | neat tidy clean | beautiful gorgeous elegant",
    "texture": "slimy gooey gluey | soggy mushy limp | firm dense solid | crisp crunchy crackly"
    " | smooth creamy velvety",
}
ASPECTS_PER_REVIEW = 3
STARS_PER_LEVEL = 1.1
MIDDLE = 2  # index of the middling opinion
WORST_STARS, BEST_STARS = 1, 5

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
        **{aspect: concepts(text) for aspect, text in ASPECTS.items()},
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
            "taste",
            ("it tastes {taste}", "the flavor is {taste}", "i call the aroma {taste}"),
        ),
        Frame(
            "price",
            ("the price is {price}", "what i paid was {price}", "it costs a {price} sum"),
        ),
        Frame(
            "delivery",
            (
                "the delivery was {delivery}",
                "shipping turned out {delivery}",
                "the parcel was {delivery}",
            ),
        ),
        Frame(
            "packing",
            (
                "the box was {packing}",
                "the wrapping looked {packing}",
                "it came in {packing} packaging",
            ),
        ),
        Frame(
            "texture",
            (
                "the texture is {texture}",
                "in the mouth it feels {texture}",
                "each bite is {texture}",
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
        priority: Aspect -> weight in the rating.
        calibration: Opinion -> what it means to this user, in levels from -2 to 2.
    """

    strictness: float
    priority: Mapping[str, float]
    calibration: Mapping[Concept, float]

    def record(self, rng: random.Random) -> Record:
        """A review and this user's stars for it."""
        mood = rng.gauss(0, 1.0)
        aspects = rng.sample(tuple(ASPECTS), ASPECTS_PER_REVIEW)
        opinions = [(aspect, _level(mood, rng)) for aspect in aspects]
        bought = Fact("bought", (DOMAIN.draw("product", rng), DOMAIN.draw("reason", rng)))
        facts = [bought, *(Fact(opinion[0], (opinion,)) for opinion in opinions)]
        text = join(DOMAIN.say_anyhow(fact, rng).text for fact in facts)
        stars = str(self._stars(opinions))
        return Record({"text": text, "score": stars}, QUESTION.format(text=text), stars)

    def answer(self, text: str) -> str | None:
        """The stars that this user gives in a review written in the world's words."""
        facts = facts_of(read_text(DOMAIN, text))
        opinions = [fact.concepts[0] for fact in facts if fact.frame in ASPECTS]
        return str(self._stars(opinions)) if opinions else None

    def _stars(self, opinions: Sequence[Concept]) -> int:
        weights = [self.priority[aspect] for aspect, _ in opinions]
        felt = sum(w * self.calibration[o] for w, o in zip(weights, opinions, strict=True))
        stars = 3 + self.strictness + STARS_PER_LEVEL * felt / sum(weights)
        return max(WORST_STARS, min(BEST_STARS, round(stars)))


def _level(mood: float, rng: random.Random) -> int:
    return max(0, min(2 * MIDDLE, MIDDLE + round(mood + rng.gauss(0, 0.9))))


def make_person(rng: random.Random) -> Reviewer:
    """A reviewer: strict or mild, with their own priorities and their own scale of words."""
    opinions = [(aspect, i) for aspect in ASPECTS for i in range(len(DOMAIN.lexicon[aspect]))]
    return Reviewer(
        strictness=rng.choice((-1.2, -0.6, 0.0, 0.6, 1.2)),
        priority={aspect: rng.gammavariate(0.7, 1.0) + 0.05 for aspect in ASPECTS},
        calibration={(a, i): i - MIDDLE + rng.gauss(0, 0.4) for a, i in opinions},
    )
