"""LaMP-7 in the world: tweets with the user's openings, spellings, words and hashtags."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from lamp.world.grammar import Domain, Fact, Frame, join, spell
from lamp.world.person import Record, Vocabulary, concepts, habit, make_vocabulary

QUESTION = "Paraphrase the following tweet without any explanation before or after it: {text}"

DOMAIN = Domain(
    name="tweets",
    lexicon={
        "activity": concepts(
            "swimming diving paddling | running jogging sprinting | shopping spending browsing"
            " | cooking baking grilling | studying revising cramming | gaming playing streaming"
            " | cleaning tidying dusting | dancing partying clubbing | sleeping napping snoozing"
            " | painting drawing sketching | reading novels books | gardening planting weeding"
        ),
        "time": concepts(
            "tonight later afterwards | tomorrow soon shortly | now already today"
            " | sunday saturday weekend"
        ),
        "who": concepts(
            "mom mum mother | brother bro sibling | boss manager supervisor | friend mate buddy"
            " | teacher tutor coach | neighbor landlord roommate"
        ),
        "feeling": concepts(
            "happy glad cheerful | tired exhausted sleepy | angry mad furious"
            " | bored idle listless | nervous anxious tense | proud smug pleased"
        ),
        "thing": concepts(
            "weather sky rain | phone mobile cell | lunch food snack | movie film show"
            " | song track tune | traffic road bus"
        ),
        "verdict": concepts(
            "great amazing awesome | terrible awful horrid | strange weird odd | lovely sweet cute"
            " | loud noisy deafening | slow sluggish late"
        ),
    },
    frames=(
        Frame(
            "plan",
            (
                "i am going to do some {activity} {time}",
                "{time} i am going to be {activity}",
                "my plan is {activity} {time}",
            ),
        ),
        Frame(
            "state",
            (
                "my {who} is really {feeling} because of that",
                "because of that my {who} is so {feeling}",
                "that is why my {who} is {feeling}",
            ),
        ),
        Frame(
            "view",
            (
                "the {thing} is so {verdict} you know",
                "you know the {thing} is {verdict}",
                "what a {verdict} {thing} it is",
            ),
        ),
    ),
    spellings={
        "am": ("m",),
        "going": ("goin", "goinn"),
        "really": ("rly", "reallyy"),
        "because": ("cuz", "bc"),
        "you": ("u", "ya"),
        "so": ("sooo", "soo"),
        "my": ("mah", "ma"),
        "the": ("da", "teh"),
        "that": ("dat", "tht"),
        "what": ("wat", "wut"),
        "some": ("sum", "sm"),
        "know": ("kno", "knw"),
        "is": ("iz", "izz"),
    },
)
OPENINGS = ("", "omg", "ugh", "lol", "haha", "hey guys", "well", "ok so", "wow", "guess what")
CLOSINGS = ("", "xoxo", ":)", "=/", "lmao", "hehe", "yay", "smh", "!!!")
# Hashtags per activity; which one a user takes shows only when the activity comes up.
HASHTAGS = ("fun", "life", "mood", "goals", "daily", "vibes")


@dataclass(frozen=True)
class Tweeter:
    """A user who tweets.

    Attributes:
        vocabulary: Favourite words.
        patterns: Frame name -> the usual pattern.
        spellings: Plain word -> the user's own way to write it.
        opening: What a tweet starts with.
        closing: What a tweet ends with.
        hashtags: Activity index -> hashtag.
    """

    vocabulary: Vocabulary
    patterns: Mapping[str, int]
    spellings: Mapping[str, str]
    opening: str
    closing: str
    hashtags: tuple[str, ...]

    def record(self, rng: random.Random) -> Record:
        """A tweet in this user's style; the question has it in plain words."""
        facts = [Fact("plan", (DOMAIN.draw("activity", rng), DOMAIN.draw("time", rng)))]
        other = rng.choice(DOMAIN.frames[1:])
        facts.append(Fact(other.name, tuple(DOMAIN.draw(slot, rng) for slot in other.slots)))
        plain = join(DOMAIN.say_anyhow(fact, rng).text for fact in facts)
        tweet = self._tweet(facts, rng)
        return Record({"text": tweet}, QUESTION.format(text=plain), tweet)

    def _tweet(self, facts: list[Fact], rng: random.Random) -> str:
        choose = self.vocabulary.choose(rng)
        said = []
        for fact in facts:
            patterns = range(len(DOMAIN.frame_by_name[fact.frame].patterns))
            said.append(DOMAIN.say(fact, habit(patterns, self.patterns[fact.frame], rng), choose))
        activity = facts[0].concepts[0][1]
        ending = f"{habit(CLOSINGS, self.closing, rng)} #{self.hashtags[activity]}".strip()
        parts = [habit(OPENINGS, self.opening, rng), *(s.text for s in said), ending]
        return spell(join(part for part in parts if part), self.spellings)


def make_person(rng: random.Random) -> Tweeter:
    """A tweeter with their own style."""
    spellings = {
        plain: rng.choice(others)
        for plain, others in DOMAIN.spellings.items()
        if rng.random() < 0.6
    }
    return Tweeter(
        make_vocabulary(DOMAIN, rng),
        {frame.name: rng.randrange(len(frame.patterns)) for frame in DOMAIN.frames},
        spellings,
        rng.choice(OPENINGS),
        rng.choice(CLOSINGS),
        tuple(rng.choice(HASHTAGS) for _ in DOMAIN.lexicon["activity"]),
    )
