"""RAG as LaMP does it: BM25 over the user's own records, the best of them in the prompt.

Each task has its own wording for a record and its own place in the query. The budget is split
evenly over the records; what one leaves unused goes to the next. Scores are BM25 with k1 = 1.5 and
b = 0.75 over words parted by white space, as LaMP's; the inverse document frequency is Lucene's,
which is never negative, where LaMP's library lifts negative ones to a floor.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from lamp.records import Pair, Prompt, Query
from lamp.tasks import Task, as_prompt, query_text

JOINT = ", and "
_OPTIONS = re.compile(r'\[\d\]: "([^"]*)"')


class Tokenizer(Protocol):
    """What counts and cuts text."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Turn text into token ids."""

    def decode(self, token_ids: list[int]) -> str:
        """Turn token ids into text."""


def prompt_with_items(
    task: Task,
    query: Query,
    pairs: tuple[Pair, ...],
    tokenizer: Tokenizer,
    *,
    items: int,
    max_tokens: int,
) -> Prompt:
    """Put the records that fit ``query`` best into its prompt.

    Args:
        task: The task.
        query: The official query.
        pairs: The user's own records, D_u.
        tokenizer: The answering model's tokenizer.
        items: At most so many records; 0 gives the plain prompt.
        max_tokens: Length of the records together. A record whose wording alone does not fit into
            its share is left out.

    Raises:
        DataError: If the query does not have the task's wording.
    """
    plain = as_prompt(task, query.input)
    if not items:
        return plain
    chosen = [pairs[place] for place in ranked(task, query, pairs)[:items]]
    parts: list[str] = []
    left = max_tokens
    for number, pair in enumerate(chosen):
        part = _fitted(task, pair, tokenizer, left // (len(chosen) - number))
        left -= _length(tokenizer, part)
        parts += [part] if part else []
    return _placed(task, plain, parts) if parts else plain


def ranked(task: Task, query: Query, pairs: tuple[Pair, ...]) -> list[int]:
    """Order the records by their BM25 score for ``query``, best first, ties in their own order."""
    return _ordered(task, _asked(task, query).split(), pairs)


def _ordered(task: Task, words: Sequence[str], pairs: tuple[Pair, ...]) -> list[int]:
    if not any(_searched(task, pair) for pair in pairs):
        return list(range(len(pairs)))
    index = _index(task, pairs)
    asked = [word for word in words if word in index.vocab_dict]
    scores = index.get_scores(asked) if asked else np.zeros(len(pairs))
    order: list[int] = np.argsort(-scores, kind="stable").tolist()
    return order


def nearest(
    task: Task, pairs: Sequence[Pair], others: tuple[Pair, ...], number: int
) -> list[list[Pair]]:
    """Per record of ``pairs`` the ``number`` nearest of ``others`` by BM25, none of them twice.

    A record that is the nearest to several goes to the first of them, in turns: everyone's
    nearest, then everyone's second. Where ``others`` run out, the last get fewer.
    """
    found: list[list[Pair]] = [[] for _ in pairs]
    orders = [iter(_ordered(task, _searched(task, pair), others)) for pair in pairs]
    taken: set[int] = set()
    for _ in range(number):
        for order, own in zip(orders, found, strict=True):
            place = next((each for each in order if each not in taken), None)
            if place is not None:
                taken.add(place)
                own.append(others[place])
    return found


@lru_cache(maxsize=2)  # one user's queries follow each other
def _index(task: Task, pairs: tuple[Pair, ...]) -> Any:
    import bm25s

    logging.getLogger("bm25s").setLevel(logging.WARNING)  # it says every index it builds
    index = bm25s.BM25(method="lucene", k1=1.5, b=0.75)
    index.index([_searched(task, pair) for pair in pairs], show_progress=False)
    return index


def _searched(task: Task, pair: Pair) -> list[str]:
    """Words of a record; a label is no text to search."""
    text = pair.input if task.pair_labels else f"{pair.response} {pair.input}"
    return text.split()


def _asked(task: Task, query: Query) -> str:
    text = query_text(task, query)
    return " ".join(_OPTIONS.findall(query.input)) if task.wording.options else text


def _fitted(task: Task, pair: Pair, tokenizer: Tokenizer, share: int) -> str:
    """Word one record in at most ``share`` tokens; "" where that leaves its text no room."""
    wording = task.wording
    fields = {task.input_field: pair.input, task.response_field: pair.response}
    room = share - _length(tokenizer, _fill(wording.item, fields | {wording.long: ""}))
    ids = tokenizer.encode(fields[wording.long], add_special_tokens=False)
    if room < 1 or not ids:
        return ""
    cut = fields[wording.long] if len(ids) <= room else tokenizer.decode(ids[:room])
    return _fill(wording.item, fields | {wording.long: cut})


def _fill(item: str, fields: dict[str, str]) -> str:
    """Fill the braces in one pass, so that braces in a user's text stay text."""
    return re.sub(r"\{(\w+)\}", lambda match: fields[match[1]], item)


def _length(tokenizer: Tokenizer, text: str) -> int:
    return len(tokenizer.encode(text, add_special_tokens=False))


def _placed(task: Task, plain: Prompt, parts: Sequence[str]) -> Prompt:
    wording = task.wording
    if not wording.after_text:
        return replace(plain, before=JOINT.join(parts) + wording.lead + plain.before)
    quote, rest = plain.after[:1], plain.after[1:]
    return replace(plain, after=quote + "".join(JOINT + part for part in parts) + rest)
