"""What the synthetic pairs are worth: variety, likeness, and truth where it is known.

Numbers only; no text is kept. Distinct-n falls with the amount of text, so all groups that are
compared are cut to the same number of words.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

from lamp.metrics import rouge_l
from lamp.records import Pair
from strategy.filters import Candidate, Selection

MOST_PAIRS = 300  # of texts, for the likeness within a user
KEPT, REJECTED, SHARED = "kept", "rejected", "shared"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What somebody who knows the truth says of one synthetic pair; None where it is not known.

    Attributes:
        same_facts: Whether its input states what the shared record's input states.
        right_label: Whether its response is the one that its user would give.
    """

    same_facts: bool | None = None
    right_label: bool | None = None


Truth = Callable[[str, Pair, Pair], Verdict]  # user, shared pair, synthetic pair


@dataclass(frozen=True, slots=True)
class UserChoice:
    """One user's candidates and what became of them."""

    shared: Sequence[Pair]
    candidates: Sequence[Candidate]
    selection: Selection


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """One group of texts of one arm.

    Attributes:
        arm: Arm.
        group: "kept", "rejected" (readable ones) or "shared": the records they were made from.
        texts: Number of texts.
        distinct1: Different words per word.
        distinct2: Different pairs of neighbouring words per pair.
        self_rouge: Mean ROUGE-L F1 between two texts of the same user.
        source_rouge: Mean ROUGE-L F1 between a text and the record it was made from.
        same_facts: Share of the texts that state what their record states.
        right_label: Share of the responses that are right.
    """

    arm: str
    group: str
    texts: int
    distinct1: float | None = None
    distinct2: float | None = None
    self_rouge: float | None = None
    source_rouge: float | None = None
    same_facts: float | None = None
    right_label: float | None = None


def diagnose(
    arm: str, choices: Mapping[str, UserChoice], truth: Truth | None, seed: int
) -> list[Diagnosis]:
    """Describe an arm's kept and rejected candidates beside the records they were made from."""
    groups: dict[str, dict[str, list[Candidate]]] = {KEPT: {}, REJECTED: {}}
    for user, choice in choices.items():
        kept = {pair.id for pair in choice.selection.kept}
        for candidate in choice.candidates:
            if candidate.pair is not None:
                group = groups[KEPT if candidate.pair.id in kept else REJECTED]
                group.setdefault(user, []).append(candidate)
    texts = {name: _texts(group) for name, group in groups.items()}
    texts[SHARED] = {
        user: [pair.input for pair in choice.shared] for user, choice in choices.items()
    }
    words = min((n for each in texts.values() if (n := _num_words(each))), default=0)
    sources = {user: {pair.id: pair for pair in each.shared} for user, each in choices.items()}
    return [
        Diagnosis(
            arm=arm,
            group=name,
            texts=sum(map(len, texts[name].values())),
            distinct1=distinct(_flat(texts[name], seed), 1, words),
            distinct2=distinct(_flat(texts[name], seed), 2, words),
            self_rouge=_self_rouge(texts[name], seed),
            **(_against_sources(groups[name], sources, truth) if name in groups else {}),
        )
        for name in (SHARED, KEPT, REJECTED)
    ]


def distinct(texts: Sequence[str], n: int, most_words: int) -> float | None:
    """Different n-grams per n-gram (Li et al., NAACL 2016) in the first ``most_words`` words.

    N-grams do not cross texts. None without an n-gram.
    """
    grams: list[tuple[str, ...]] = []
    left = most_words
    for text in texts:
        words = text.lower().split()[:left]
        left -= len(words)
        grams += zip(*(words[start:] for start in range(n)), strict=False)
    return len(set(grams)) / len(grams) if grams else None


def _texts(group: Mapping[str, Sequence[Candidate]]) -> dict[str, list[str]]:
    return {
        user: [each.pair.input for each in candidates if each.pair is not None]
        for user, candidates in group.items()
    }


def _flat(texts: Mapping[str, Sequence[str]], seed: int) -> list[str]:
    """All users' texts in a seeded order, so that a cut takes some of everybody's."""
    flat = [text for own in texts.values() for text in own]
    random.Random(seed).shuffle(flat)
    return flat


def _num_words(texts: Mapping[str, Sequence[str]]) -> int:
    return sum(len(text.split()) for own in texts.values() for text in own)


def _self_rouge(texts: Mapping[str, Sequence[str]], seed: int) -> float | None:
    pairs = [pair for own in texts.values() for pair in combinations(own[:MOST_PAIRS], 2)]
    if len(pairs) > MOST_PAIRS:
        pairs = random.Random(seed).sample(pairs, MOST_PAIRS)
    return _mean([rouge_l(*pair) for pair in pairs])


def _against_sources(
    group: Mapping[str, Sequence[Candidate]],
    sources: Mapping[str, Mapping[str, Pair]],
    truth: Truth | None,
) -> dict[str, float | None]:
    scores = [each.scores for own in group.values() for each in own if each.scores is not None]
    verdicts = [
        truth(user, sources[user][each.source_id], each.pair)
        for user, own in (group.items() if truth else ())
        for each in own
        if truth is not None and each.pair is not None
    ]
    return {
        "source_rouge": _mean([score.rouge_l for score in scores]),
        "same_facts": _mean([v.same_facts for v in verdicts if v.same_facts is not None]),
        "right_label": _mean([v.right_label for v in verdicts if v.right_label is not None]),
    }


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None
