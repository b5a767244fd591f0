"""Lexicons: for each domain the words that tell it from the others.

The domain-specific score of a streaming device counts them. Four ways to come by some: a JSON file
``{"medical": ["fever", "dose"], ...}``; the miniature world's own vocabulary; texts that carry a
domain, of which each domain's most telling words are taken; or any texts at all, which are first
grouped into topics (k-means over TF-IDF).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pydantic.dataclasses import dataclass

from conf.errors import DataError
from conf.schema import STRICT
from storage import atomic
from storage.text_files import read_json, shown

WORD = re.compile(r"\w+")
LEAST_USES = 2  # a word that was used once tells nothing about a domain
TOPIC_WORDS = 5000  # vocabulary of the topics


@dataclass(frozen=True, config=STRICT)
class Lexicon:
    """The words of one domain.

    Attributes:
        domain: Name of the domain.
        words: Lower-case words.
    """

    domain: str
    words: tuple[str, ...]


def words_of(text: str) -> list[str]:
    """The words of ``text`` in lower case, in order."""
    return WORD.findall(text.lower())


def read_lexicons(path: Path) -> tuple[Lexicon, ...]:
    """Read a JSON file with domain -> list of words.

    Raises:
        DataError: If the file is missing, broken or of another form.
    """
    remedy = 'expected {"<domain>": ["<word>", ...], ...}; set stream.lexicons to such a file'
    value = read_json(path, remedy, remedy)
    if not isinstance(value, dict) or not value:
        raise DataError(f"{path.name}: got {type(value).__name__} without domains; {remedy}")
    for domain, listed in value.items():
        if not isinstance(listed, list) or not all(isinstance(word, str) for word in listed):
            raise DataError(f"{path.name}, domain {shown(domain)}: got no list of words; {remedy}")
    return tuple(
        Lexicon(domain, tuple(dict.fromkeys(word.lower() for word in listed)))
        for domain, listed in value.items()
    )


def write_lexicons(path: Path, lexicons: Iterable[Lexicon]) -> None:
    """Write a file that :func:`read_lexicons` reads."""
    atomic.write_json(path, {each.domain: list(each.words) for each in lexicons})


def telling_words(texts: Mapping[str, Sequence[str]], size: int) -> tuple[Lexicon, ...]:
    """Take each domain's ``size`` most telling words.

    A word counts by how often its domain uses it times the log of how much oftener it stands there
    than in all domains together; words that a domain uses less than its share are left out.

    Args:
        texts: Domain -> its texts.
        size: Words per domain, at most.

    Raises:
        DataError: If no domain has a word to tell it by.
    """
    uses = {name: Counter(w for text in texts[name] for w in words_of(text)) for name in texts}
    everywhere = sum(uses.values(), Counter[str]())
    found = tuple(
        Lexicon(name, words)
        for name, own in sorted(uses.items())
        if (words := _most_telling(own, everywhere, size))
    )
    if not found:
        raise DataError(
            "lexicons: expected texts of several domains that differ in their words, got "
            f"{len(texts)} domains without a telling word; set stream.lexicons to a file"
        )
    return found


def _most_telling(own: Counter[str], everywhere: Counter[str], size: int) -> tuple[str, ...]:
    here, total = own.total(), everywhere.total()
    weights = {
        word: count * math.log(count / here * total / everywhere[word])
        for word, count in own.items()
        if count >= LEAST_USES and not word.isdigit()
    }
    ranked = sorted((word for word in weights if weights[word] > 0), key=lambda w: (-weights[w], w))
    return tuple(ranked[:size])


def topics(texts: Sequence[str], count: int, seed: int) -> dict[str, list[str]]:
    """Group texts without domains into at most ``count`` topics by the words they use.

    Raises:
        DataError: If there are no texts with words.
    """
    from sklearn.cluster import KMeans
    from sklearn.feature_extraction.text import TfidfVectorizer

    usable = sorted({text for text in texts if words_of(text)})
    if not usable:
        raise DataError(
            "lexicons: expected texts of public users to make them from, got none; "
            "set stream.lexicons to a file, or take more data"
        )
    vectoriser = TfidfVectorizer(
        tokenizer=words_of, token_pattern=None, lowercase=False, max_features=TOPIC_WORDS
    )
    matrix = vectoriser.fit_transform(usable)
    groups = KMeans(min(count, len(usable)), n_init=1, random_state=seed % 2**32)
    grouped: dict[str, list[str]] = {}
    for text, group in zip(usable, groups.fit_predict(matrix), strict=True):
        grouped.setdefault(f"topic-{group + 1}", []).append(text)
    return grouped
