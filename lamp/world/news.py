"""LaMP-4 in the world: articles in plain words; headlines in the words and habits of their user."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from lamp.world.grammar import Concept, Domain, Fact, Frame, WordChoice, join
from lamp.world.person import Record, Vocabulary, concepts, habit, make_vocabulary

QUESTION = "Generate a headline for the following article: {text}"
TOPICS = 4  # objects fall into so many topics; the angle of a headline depends on the topic

DOMAIN = Domain(
    name="news",
    lexicon={
        "actor": concepts(
            "mayor governor chairman | council board committee | police officers cops"
            " | students pupils youths | doctors medics physicians | union workers labor"
            " | company firm business | court judges tribunal | fans supporters crowd"
            " | residents locals neighbors"
        ),
        "action": concepts(
            "approved backed endorsed | rejected refused opposed | delayed postponed deferred"
            " | launched started opened | cancelled scrapped dropped"
            " | reviewed examined inspected | celebrated praised cheered"
            " | questioned doubted challenged"
        ),
        "object": concepts(
            "budget spending funds | tax levy duty | loan credit debt"
            " | bridge crossing viaduct | tunnel underpass subway | highway motorway freeway"
            " | festival fair carnival | concert gig recital | museum gallery exhibit"
            " | vaccine shot jab | diet nutrition menu | hospital ward infirmary"
        ),
        "place": concepts(
            "harbor port docks | downtown center core | suburb outskirts fringe"
            " | valley basin lowland | coast shore seaside | north upstate uplands"
        ),
        "day": concepts("monday | tuesday | wednesday | thursday | friday | weekend"),
        "cause": concepts(
            "storm gale hurricane | inflation prices costs | election vote ballot"
            " | leak spill breach | shortage scarcity lack | rivalry feud dispute"
        ),
        "mood": concepts(
            "anger fury outrage | relief comfort ease | surprise shock amazement"
            " | hope optimism confidence | worry concern fear | laughter amusement mirth"
        ),
    },
    frames=(
        Frame(
            "event",
            (
                "the {actor} {action} the {object}",
                "it was the {object} that the {actor} {action}",
                "as for the {object}, the {actor} {action} it",
            ),
        ),
        Frame(
            "where",
            (
                "it was seen near the {place} on {day}",
                "on {day} it came up near the {place}",
                "near the {place} this was on {day}",
            ),
        ),
        Frame(
            "why",
            (
                "many blame {cause}",
                "the reason given was {cause}",
                "it all stems from {cause}",
            ),
        ),
        Frame(
            "feeling",
            (
                "the news was met with {mood}",
                "there was {mood} at the news",
                "{mood} followed",
            ),
        ),
    ),
    spellings={},
)
OPENERS = ("", "breaking:", "report:", "exclusive:", "watch:", "opinion:", "just in:", "update:")
CORES = (
    "{actor} {action} {object}",
    "{object}: {actor} {action} it",
    "how {actor} {action} {object}",
)
ANGLES = {
    "place": ("near the {place}", "in the {place}"),
    "day": ("on {day}", "this {day}"),
    "cause": ("over {cause}", "after {cause}"),
    "mood": ("amid {mood}", "to much {mood}"),
}
CLOSERS = ("", "!", "?", ", again", ", at last", ", and now what", ", explained", ", sources say")


@dataclass(frozen=True)
class Editor:
    """A user who writes headlines.

    Attributes:
        vocabulary: Favourite words.
        opener: What a headline starts with.
        core: Pattern of the event.
        angles: Topic of the object -> the one detail that gets into the headline, and its pattern.
        closer: What a headline ends with.
    """

    vocabulary: Vocabulary
    opener: str
    core: str
    angles: tuple[tuple[str, int], ...]
    closer: str

    def record(self, rng: random.Random) -> Record:
        """An article in anybody's words and the headline in this user's."""
        facts = [_draw(frame, rng) for frame in DOMAIN.frames]
        story: dict[str, Concept] = {c[0]: c for fact in facts for c in fact.concepts}
        rng.shuffle(facts)
        text = join(DOMAIN.say_anyhow(fact, rng).text for fact in facts)
        title = self._headline(story, rng)
        return Record({"text": text, "title": title}, QUESTION.format(text=text), title)

    def _headline(self, story: Mapping[str, Concept], rng: random.Random) -> str:
        topic = story["object"][1] * TOPICS // len(DOMAIN.lexicon["object"])
        angle, wording = self.angles[topic]
        parts = [
            habit(OPENERS, self.opener, rng),
            habit(CORES, self.core, rng),
            ANGLES[angle][wording],
        ]
        choose: WordChoice = self.vocabulary.choose(rng)
        words = {category: choose(concept) for category, concept in story.items()}
        title = " ".join(part for part in parts if part).format(**words)
        return title + habit(CLOSERS, self.closer, rng)


def _draw(frame: Frame, rng: random.Random) -> Fact:
    return Fact(frame.name, tuple(DOMAIN.draw(slot, rng) for slot in frame.slots))


def make_person(rng: random.Random) -> Editor:
    """An editor with their own words and habits."""
    angles = tuple((rng.choice(tuple(ANGLES)), rng.randrange(2)) for _ in range(TOPICS))
    vocabulary = make_vocabulary(DOMAIN, rng)
    return Editor(vocabulary, rng.choice(OPENERS), rng.choice(CORES), angles, rng.choice(CLOSERS))
