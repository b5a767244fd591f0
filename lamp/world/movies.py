"""LaMP-2 in the world: films that would bear several tags; the user's own taste picks one."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lamp.world.grammar import Concept, Domain, Fact, Frame, facts_of, join, read_text
from lamp.world.person import Record, concepts, weighted_sample

QUESTION = (
    "Which tag does this movie relate to among the following tags? Just answer with the tag name "
    "without further explanation. tags: [{tags}] description: {text}"
)

# What speaks for each official tag: a figure, an item and an event, three words for each.
MOTIFS: Mapping[str, str] = {
    "sci-fi": "robot android cyborg | spaceship starship rocket | cloning replication duplication",
    "based on a book": "author writer novelist | novel bestseller paperback"
    " | reading recital narration",
    "comedy": "clown jester buffoon | pie cake pudding | mishap blunder goof",
    "action": "commando soldier trooper | gun pistol revolver | chase pursuit manhunt",
    "twist ending": "imposter fraud pretender | mask disguise costume"
    " | reveal disclosure unmasking",
    "dystopia": "rebel insurgent dissident | camera monitor wiretap | curfew lockdown blackout",
    "dark comedy": "undertaker mortician gravedigger | coffin casket hearse | funeral burial wake",
    "classic": "butler valet footman | telegram letter postcard | ball waltz gala",
    "psychology": "therapist psychiatrist counselor | couch sofa armchair | nightmare dream vision",
    "fantasy": "wizard sorcerer mage | sword blade saber | spell curse charm",
    "romance": "sweetheart lover darling | bouquet roses tulips | wedding marriage nuptials",
    "thought-provoking": "philosopher thinker sage | riddle paradox dilemma"
    " | debate discussion argument",
    "social commentary": "landlord banker tycoon | slum ghetto shanty | strike walkout protest",
    "violence": "hitman assassin killer | knife dagger machete | brawl fistfight scuffle",
    "true story": "pilot aviator flyer | biography memoir diary | expedition voyage journey",
}
TAGS = tuple(MOTIFS)
KINDS = ("figure", "item", "event")
# Spread of a user's liking for tags and for single motifs; how far it rules which films are seen.
TASTE = 1.5
LEANING = 0.6
RANGE = 0.4

DOMAIN = Domain(
    name="movies",
    lexicon={
        **{
            kind: tuple(concepts(text)[place] for text in MOTIFS.values())
            for place, kind in enumerate(KINDS)
        },
        "place": concepts(
            "city metropolis town | village hamlet settlement | island isle atoll"
            " | forest woods jungle | desert dunes badlands | mountains peaks hills"
        ),
    },
    frames=(
        Frame(
            "where",
            (
                "it is set in the {place}",
                "the {place} is the scene",
                "the story unfolds in the {place}",
            ),
        ),
        Frame(
            "who",
            (
                "it follows the {figure}",
                "we meet the {figure}",
                "at the center is the {figure}",
            ),
        ),
        Frame(
            "what",
            (
                "the {item} plays a part",
                "much depends on the {item}",
                "everybody wants the {item}",
            ),
        ),
        Frame(
            "event",
            (
                "then comes the {event}",
                "the {event} changes it all",
                "it ends with the {event}",
            ),
        ),
    ),
    spellings={},
)


@dataclass(frozen=True)
class Viewer:
    """A user who tags films.

    Attributes:
        taste: Tag -> how readily the user gives it.
        leaning: Motif -> how strongly it calls for its tag, to this user.
    """

    taste: Mapping[str, float]
    leaning: Mapping[Concept, float]

    def record(self, rng: random.Random) -> Record:
        """A film out of the user's range, bearing three tags, and the one that the user gives."""
        weights = [math.exp(RANGE * self.taste[tag]) for tag in TAGS]
        tags = weighted_sample(TAGS, weights, len(KINDS), rng)
        rng.shuffle(tags)
        motifs = [(kind, TAGS.index(tag)) for kind, tag in zip(KINDS, tags, strict=True)]
        concepts = [DOMAIN.draw("place", rng), *motifs]
        frames = zip(DOMAIN.frames, concepts, strict=True)
        facts = [Fact(frame.name, (concept,)) for frame, concept in frames]
        rng.shuffle(facts)
        text = join(DOMAIN.say_anyhow(fact, rng).text for fact in facts)
        tag = self._tag(motifs)
        question = QUESTION.format(tags=", ".join(TAGS), text=text)
        return Record({"description": text, "tag": tag}, question, tag)

    def answer(self, text: str) -> str | None:
        """The tag that this user gives to a film described in the world's words."""
        facts = facts_of(read_text(DOMAIN, text))
        motifs = [concept for fact in facts for concept in fact.concepts if concept[0] in KINDS]
        return self._tag(motifs) if motifs else None

    def _tag(self, motifs: Sequence[Concept]) -> str:
        chosen = max(motifs, key=lambda m: self.taste[TAGS[m[1]]] + self.leaning[m])
        return TAGS[chosen[1]]


def make_person(rng: random.Random) -> Viewer:
    """A viewer with a skewed taste of their own."""
    taste = {tag: rng.gauss(0, TASTE) for tag in TAGS}
    leaning = {(kind, i): rng.gauss(0, LEANING) for kind in KINDS for i in range(len(TAGS))}
    return Viewer(taste, leaning)
