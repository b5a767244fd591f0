"""LaMP-2 in the world: films that would bear several tags; the user's own taste picks one."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass

from lamp.world.grammar import Domain, Fact, Frame, join
from lamp.world.person import Record, concepts, weighted_sample

QUESTION = (
    "Which tag does this movie relate to among the following tags? Just answer with the tag name "
    "without further explanation. tags: [{tags}] description: {text}"
)

# Three motifs for each official tag, three words for each motif.
MOTIFS: Mapping[str, str] = {
    "sci-fi": "robot android cyborg | spaceship starship rocket | alien extraterrestrial martian",
    "based on a book": "novel bestseller paperback | author writer novelist | chapter page verse",
    "comedy": "prank joke gag | clown jester buffoon | mishap blunder goof",
    "action": "chase pursuit manhunt | explosion blast detonation | gun pistol revolver",
    "twist ending": "secret mystery enigma | mask disguise costume | clue hint trace",
    "dystopia": "regime dictatorship tyranny | wasteland ruins rubble | curfew lockdown blackout",
    "dark comedy": "funeral burial wake | undertaker mortician gravedigger | corpse body cadaver",
    "classic": "orchestra band ensemble | ballroom dancehall salon | butler valet footman",
    "psychology": "therapist psychiatrist counselor | nightmare dream vision"
    " | asylum clinic sanatorium",
    "fantasy": "dragon wyvern serpent | wizard sorcerer mage | castle fortress citadel",
    "romance": "wedding marriage nuptials | kiss embrace caress | sweetheart lover darling",
    "thought-provoking": "philosopher thinker sage | paradox dilemma riddle | faith belief creed",
    "social commentary": "strike walkout protest | poverty hardship misery | factory mill plant",
    "violence": "gang mob cartel | knife dagger machete | hitman assassin killer",
    "true story": "biography memoir diary | pilot aviator flyer | expedition voyage journey",
}
TAGS = tuple(MOTIFS)
MOTIFS_PER_TAG = 3

DOMAIN = Domain(
    name="movies",
    lexicon={
        "motif": tuple(words for text in MOTIFS.values() for words in concepts(text)),
        "hero": concepts(
            "detective sleuth investigator | teacher professor tutor | farmer rancher grower"
            " | nurse medic doctor | sailor seaman mariner | cook chef baker"
            " | child kid youngster | widow dowager spinster"
        ),
        "place": concepts(
            "city metropolis town | village hamlet settlement | island isle atoll"
            " | forest woods jungle | desert dunes badlands | mountains peaks hills"
        ),
    },
    frames=(
        Frame(
            "hero",
            (
                "one {hero} lives in the {place}",
                "in the {place} there is this {hero}",
                "the {place} is home to our {hero}",
            ),
        ),
        Frame(
            "begin",
            (
                "it begins with the {motif}",
                "the {motif} opens the story",
                "at first we see the {motif}",
            ),
        ),
        Frame(
            "turn",
            (
                "everything turns on the {motif}",
                "the {motif} changes it all",
                "the plot hangs on the {motif}",
            ),
        ),
        Frame(
            "close",
            (
                "it closes with the {motif}",
                "the {motif} returns at last",
                "what remains is the {motif}",
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
        leaning: Motif index -> how strongly that motif calls for its tag, to this user.
    """

    taste: Mapping[str, float]
    leaning: tuple[float, ...]

    def record(self, rng: random.Random) -> Record:
        """A film out of the user's range and the tag that the user gives it."""
        weights = [math.exp(0.4 * self.taste[tag]) for tag in TAGS]
        tags = weighted_sample(TAGS, weights, 3, rng)
        motifs = [TAGS.index(tag) * MOTIFS_PER_TAG + rng.randrange(MOTIFS_PER_TAG) for tag in tags]
        facts = [Fact("hero", (DOMAIN.draw("hero", rng), DOMAIN.draw("place", rng)))]
        names = rng.sample(("begin", "turn", "close"), 3)
        facts += [Fact(n, (("motif", m),)) for n, m in zip(names, motifs, strict=True)]
        rng.shuffle(facts)
        text = join(DOMAIN.say_anyhow(fact, rng).text for fact in facts)
        chosen = max(motifs, key=lambda m: self.taste[TAGS[m // MOTIFS_PER_TAG]] + self.leaning[m])
        tag = TAGS[chosen // MOTIFS_PER_TAG]
        question = QUESTION.format(tags=", ".join(TAGS), text=text)
        return Record({"description": text, "tag": tag}, question, tag)


def make_person(rng: random.Random) -> Viewer:
    """A viewer with a skewed taste of their own."""
    taste = {tag: rng.gauss(0, 1.5) + 0.08 * i for i, tag in enumerate(reversed(TAGS))}
    leaning = tuple(rng.gauss(0, 0.6) for _ in range(len(TAGS) * MOTIFS_PER_TAG))
    return Viewer(taste, leaning)
