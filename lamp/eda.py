"""EDA: variants of a text by synonym replacement, insertion, swap and deletion of words.

The four operations of Wei and Zou (EMNLP 2019) on the input field alone. What their public code
leaves to the hash order of sets is sorted here, case and punctuation stay, and the operations take
turns, so k variants of a text depend on the text and the seed only.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import lru_cache

from conf.errors import DataError

Thesaurus = Callable[[str], tuple[str, ...]]
WORLD, WORDNET = "world", "wordnet"


def variants(text: str, n: int, seed: int, synonyms: Thesaurus, rate: float) -> tuple[str, ...]:
    """Write ``n`` variants of ``text``.

    Args:
        text: Text to vary; white space between words becomes a blank.
        n: Number of variants. The operations take turns in a seeded order.
        seed: Seed of all choices.
        synonyms: Synonyms of a lower-case word, in a fixed order.
        rate: Share of the words that an operation changes, at least one; for deletion the
            probability of each word.
    """
    rng = random.Random(seed)
    turns = rng.sample(_OPERATIONS, len(_OPERATIONS))
    words = text.split()
    if not words:
        return (text,) * n
    changes = max(1, int(rate * len(words)))
    return tuple(
        " ".join(turns[number % len(turns)](words, changes, rate, synonyms, rng))
        for number in range(n)
    )


@lru_cache(maxsize=2)
def thesaurus(name: str) -> Thesaurus:
    """Return the thesaurus "world" or "wordnet".

    Raises:
        DataError: If WordNet's data are not on this machine.
    """
    return _world() if name == WORLD else _wordnet()


def _world() -> Thesaurus:
    from lamp import world

    known = world.synonyms()
    return lambda word: known.get(word, ())


def _wordnet() -> Thesaurus:
    from nltk.corpus import wordnet

    try:
        wordnet.ensure_loaded()
    except (LookupError, OSError) as error:
        found = "is not on this machine" if isinstance(error, LookupError) else "cannot be read"
        raise DataError(
            f"WordNet: expected nltk's corpus 'wordnet' for eda_ft, it {found}; get it with "
            "`python -m nltk.downloader wordnet` (NLTK_DATA names another folder), or leave "
            "eda_ft out"
        ) from error

    @lru_cache(maxsize=65536)
    def synonyms(word: str) -> tuple[str, ...]:
        names = {name for synset in wordnet.synsets(word) for name in synset.lemma_names()}
        return tuple(sorted({name.replace("_", " ").lower() for name in names} - {word}))

    return synonyms


def _replace(
    words: Sequence[str], changes: int, _rate: float, synonyms: Thesaurus, rng: random.Random
) -> list[str]:
    candidates = _replaceable(words, synonyms)
    chosen = rng.sample(candidates, min(changes, len(candidates)))
    new = {word: rng.choice(synonyms(word)) for word in chosen}
    return [_swap_core(word, new.get(_core(word), "")) for word in words]


def _insert(
    words: Sequence[str], changes: int, _rate: float, synonyms: Thesaurus, rng: random.Random
) -> list[str]:
    candidates = _replaceable(words, synonyms)
    longer = list(words)
    for _ in range(changes if candidates else 0):
        new = rng.choice(synonyms(rng.choice(candidates)))
        longer.insert(rng.randint(0, len(longer)), new)
    return longer


def _swap(
    words: Sequence[str], changes: int, _rate: float, _synonyms: Thesaurus, rng: random.Random
) -> list[str]:
    swapped = list(words)
    for _ in range(changes if len(words) > 1 else 0):
        first, second = rng.sample(range(len(swapped)), 2)
        swapped[first], swapped[second] = swapped[second], swapped[first]
    return swapped


def _delete(
    words: Sequence[str], _changes: int, rate: float, _synonyms: Thesaurus, rng: random.Random
) -> list[str]:
    return [word for word in words if rng.random() > rate] or [rng.choice(words)]


_OPERATIONS = (_replace, _insert, _swap, _delete)


def _replaceable(words: Sequence[str], synonyms: Thesaurus) -> list[str]:
    """Distinct words that carry meaning and have a synonym, sorted."""
    distinct = sorted({_core(word) for word in words} - _stop_words())
    return [word for word in distinct if synonyms(word)]


def _core(word: str) -> str:
    """The word without punctuation around it, in lower case."""
    return _ends(word)[1].lower()


def _swap_core(word: str, new: str) -> str:
    before, core, after = _ends(word)
    if not new:
        return word
    return before + (new.capitalize() if core[:1].isupper() else new) + after


def _ends(word: str) -> tuple[str, str, str]:
    places = [place for place, letter in enumerate(word) if letter.isalnum()]
    first, last = (places[0], places[-1] + 1) if places else (len(word), len(word))
    return word[:first], word[first:last], word[last:]


@lru_cache(maxsize=1)
def _stop_words() -> frozenset[str]:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return frozenset(ENGLISH_STOP_WORDS) | {""}
