"""The miniature world: six LaMP tasks whose users have real preferences and styles.

It stands in for LaMP where nothing can be downloaded. Users differ in what they like, in the words
they prefer and in habits that only many records show, so a longer history tells more. It knows no
method: nothing here depends on how any model or method fares. Everything comes from
``WorldConfig.seed``; ``VERSION`` changes whenever the same seed would give other texts.

The world has a clock: a user writes a record a month, and with ``WorldConfig.drift`` each of the
user's traits may be another one in the next year. Without it nobody ever changes.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from conf.errors import ConfigError
from conf.schema import WorldConfig
from conf.seeds import derive_seed
from lamp.dialogue.lexicons import Lexicon
from lamp.world import grammar, movies, news, papers, reviews, tweets
from lamp.world.grammar import Label
from lamp.world.person import Person, Record, Vocabulary, altered
from storage.atomic import write_json, write_text

__all__ = [
    "DOMAINS",
    "VERSION",
    "answer",
    "knows",
    "lexicons",
    "nli_pairs",
    "paraphrase",
    "register",
    "same_facts",
    "synonyms",
    "write_world",
]

VERSION = "2"
DOMAINS = (movies.DOMAIN, reviews.DOMAIN, news.DOMAIN, papers.DOMAIN, tweets.DOMAIN)
LABELS: tuple[Label, ...] = ("entailment", "neutral", "contradiction")
# Lengths of histories are min + (max - min) * u ** SKEW with u uniform: half of them are short.
SKEW = 3
KNOWN_SHARE = 0.9
MANY_FACTS = 100
READ_TEXTS = 1 << 16
FIRST_YEAR = 2010
MONTHS = 12
CONCEPTS_OF_A_TOPIC = 3

DOMAIN_OF_TASK = {
    "lamp_1": papers.DOMAIN,
    "lamp_2": movies.DOMAIN,
    "lamp_3": reviews.DOMAIN,
    "lamp_4": news.DOMAIN,
    "lamp_5": papers.DOMAIN,
    "lamp_7": tweets.DOMAIN,
}
MAKERS: Mapping[str, Callable[[random.Random], Person]] = {
    "lamp_1": papers.make_citer,
    "lamp_2": movies.make_person,
    "lamp_3": reviews.make_person,
    "lamp_4": news.make_person,
    "lamp_5": papers.make_title_writer,
    "lamp_7": tweets.make_person,
}
ANSWERERS: Mapping[str, Callable[[random.Random], movies.Viewer | reviews.Reviewer]] = {
    "lamp_2": movies.make_person,
    "lamp_3": reviews.make_person,
}


def write_world(folder: Path, task: str, config: WorldConfig, part: str = "dev") -> None:
    """Write one task of the world as official LaMP files of the time split.

    Makes ``folder/LaMP_n/<part>_questions.json`` and ``<part>_outputs.json``: every question has a
    ``user_id`` and the whole profile of its user, whose dated items all precede the questions. No
    question's text stands in the profile.

    Args:
        folder: Data folder; the task's subfolder is made.
        task: Name such as "lamp_4".
        config: Number of users, history lengths, queries per user, seed.
        part: Part of the benchmark that the files stand for.

    Raises:
        ConfigError: If the task has no world or ``history_min`` exceeds ``history_max``.
    """
    _check(task, config)
    official = "LaMP_" + task.removeprefix("lamp_")
    questions: list[dict[str, Any]] = []
    golds: list[dict[str, str]] = []
    for number in range(config.population):
        user_questions, user_golds = _write_user(task, number, config)
        questions += user_questions
        golds += user_golds
    target = folder / official
    write_json(target / f"{part}_outputs.json", {"task": official, "golds": golds})
    write_text(target / f"{part}_questions.json", json.dumps(questions, ensure_ascii=False))


def _check(task: str, config: WorldConfig) -> None:
    if task not in MAKERS:
        raise ConfigError(
            f"task.name: the miniature world has {', '.join(sorted(MAKERS))}, got '{task}'"
        )
    if config.history_min > config.history_max:
        raise ConfigError(
            f"world.history_min must be <= world.history_max, got {config.history_min} > "
            f"{config.history_max}"
        )


def _write_user(
    task: str, number: int, config: WorldConfig
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    user_id = f"{task.removeprefix('lamp_')}{number:05d}"
    rng = _rng(config, task, number)
    person = MAKERS[task](rng)
    length = config.history_min + round(
        (config.history_max - config.history_min) * rng.random() ** SKEW
    )
    people = _years(task, number, person, length + config.queries_per_user, config)
    records = _distinct(people, length + config.queries_per_user, rng)
    profile = [_item(user_id, i, record) for i, record in enumerate(records[:length])]
    asked = list(enumerate(records[length:]))
    questions = [
        {"id": f"{user_id}-q{i}", "user_id": user_id, "input": r.question, "profile": profile}
        for i, r in asked
    ]
    return questions, [{"id": f"{user_id}-q{i}", "output": r.answer} for i, r in asked]


def _rng(config: WorldConfig, task: str, number: int) -> random.Random:
    """The generator that makes a user and then the user's records."""
    return random.Random(derive_seed(config.seed, "world", task, number))


def _years(
    task: str, number: int, person: Person, records: int, config: WorldConfig
) -> list[Person]:
    """A user in each year of their records: one person, and after each year a bit of another."""
    rng = random.Random(derive_seed(config.seed, "drift", task, number))
    people = [person]
    while len(people) * MONTHS < records:
        now = people[-1]
        people.append(altered(now, MAKERS[task](rng), config.drift, rng) if config.drift else now)
    return people


def answer(task: str, user_id: str, config: WorldConfig, text: str) -> str | None:
    """What a user of the world answers to ``text``.

    None for free text and unreadable inputs, and where users change: a text does not tell when.
    """
    if task not in ANSWERERS or config.drift:
        return None
    number = int(user_id.removeprefix(task.removeprefix("lamp_")))
    return ANSWERERS[task](_rng(config, task, number)).answer(text)


def register(task: str, user_id: str, config: WorldConfig) -> str | None:
    """The register that most favourite words of a user are of: "0", "1" or "2".

    None for the tasks whose users have no favourite words, where users change, and for users of
    another world.
    """
    number = user_id.removeprefix(task.removeprefix("lamp_"))
    if config.drift or not number.isdecimal():
        return None
    person = MAKERS[task](_rng(config, task, int(number)))
    vocabulary = getattr(person, "vocabulary", None)
    if not isinstance(vocabulary, Vocabulary):
        return None
    return str(vocabulary.register)


def same_facts(first: str, second: str) -> bool | None:
    """Whether two texts state the same, in whatever words; None where ``first`` states nothing."""
    domain = grammar.best_domain(DOMAINS, first)
    stated = set(grammar.facts_of(grammar.read_text(domain, first)))
    return stated == set(grammar.facts_of(grammar.read_text(domain, second))) if stated else None


def _distinct(people: Sequence[Person], count: int, rng: random.Random) -> list[Record]:
    """Records with pairwise different texts, so that no query stands in the profile.

    Args:
        people: The user in each year.
        count: Number of records, one a month.
        rng: Source of all choices.
    """
    records: dict[tuple[str, ...], Record] = {}
    while len(records) < count:
        record = people[len(records) // MONTHS].record(rng)
        records.setdefault(tuple(record.fields.values()), record)
    return list(records.values())


def _item(user_id: str, index: int, record: Record) -> dict[str, str]:
    year, month = FIRST_YEAR + index // MONTHS, index % MONTHS + 1
    return {"id": f"{user_id}-{index}", **record.fields, "date": f"{year}-{month:02d}-01"}


def paraphrase(text: str, seed: int) -> str:
    """Say ``text`` in other words of the world; what it states stays the same.

    Text that is not of the world comes back unchanged up to white space.
    """
    return grammar.paraphrase(DOMAINS, text, random.Random(seed))


def knows(texts: Sequence[str]) -> bool:
    """Whether ``texts`` are of the world: the frames find a fact in nearly all of them."""
    read = sum(_premise(text) is not None for text in texts)
    return read > KNOWN_SHARE * len(texts)


@lru_cache(maxsize=READ_TEXTS)
def _premise(text: str) -> grammar.Premise | None:
    """What ``text`` says; training asks for pairs about the same texts again and again."""
    return grammar.read_premise(DOMAINS, text)


def nli_pairs(
    texts: Sequence[str],
    seed: int,
    n: int,
    word_share: float = grammar.WORD_SHARE,
    most_facts: int = MANY_FACTS,
) -> list[tuple[str, str, Label]]:
    """Write ``n`` premises and hypotheses about ``texts``, a third of each label.

    Entailment: the facts, or all but one of them, in other words. Contradiction: at least half of
    the facts, each with one or more concepts exchanged. Neutral: a fact or two that the premise
    does not state.

    Args:
        texts: Texts of the world; premises state the facts of one of them, or some of these.
        seed: Seed of all choices.
        n: Number of pairs.
        word_share: So many of the words that premise and hypothesis share become synonyms.
        most_facts: Premises are about so many facts at most; fewer make easier pairs.

    Raises:
        ConfigError: If no text of the world is among ``texts``.
    """
    premises = [p for text in texts if (p := _premise(text)) is not None]
    if not premises:
        raise ConfigError(
            "model.build.nli_data must name a file with NLI pairs (JSON lines with premise, "
            "hypothesis, label): the data are not of the miniature world, which could write them"
        )
    rng = random.Random(seed)
    pairs: list[tuple[str, str, Label]] = []
    for number in range(n):
        label = LABELS[number % len(LABELS)]
        pairs.append((*rng.choice(premises).pair(label, word_share, most_facts, rng), label))
    return pairs


def lexicons(task: str) -> tuple[Lexicon, ...]:
    """The words of a task's topics: three concepts each of what its texts vary most in."""
    categories = DOMAIN_OF_TASK[task].lexicon.values()
    concepts = max(categories, key=len)
    groups = [
        concepts[start : start + CONCEPTS_OF_A_TOPIC]
        for start in range(0, len(concepts), CONCEPTS_OF_A_TOPIC)
    ]
    return tuple(
        Lexicon(group[0][0], tuple(word for concept in group for word in concept))
        for group in groups
    )


def synonyms() -> dict[str, tuple[str, ...]]:
    """Every word of the world with its synonyms: the world's thesaurus."""
    found: dict[str, set[str]] = {}
    for domain in DOMAINS:
        for concepts in domain.lexicon.values():
            for words in concepts:
                for word in words:
                    found.setdefault(word, set()).update(other for other in words if other != word)
    return {word: tuple(sorted(others)) for word, others in sorted(found.items())}
