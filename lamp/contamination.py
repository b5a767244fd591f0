"""Texts that give an answer away: in the history of the user who is asked, or among public users.

Two texts are the same when their :func:`normalised` forms are equal.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from lamp.records import Query, UserHistory
from lamp.tasks import Task, cut_words, query_text

# Unicode categories that part words: punctuation, separators, control characters.
_PARTS_WORDS = frozenset("PZC")
# Two users are taken for one where they share so many records and half of the shorter history.
FEWEST_SHARED = 2
MOST_OWNERS = 20  # what more users have (a film that everybody has seen) tells no two of them apart


class _Blanks(dict[int, int | str]):
    """For ``str.translate``: a blank for every character that parts words, filled on demand."""

    def __missing__(self, code: int) -> int | str:
        parts = unicodedata.category(chr(code))[0] in _PARTS_WORDS
        self[code] = " " if parts else code
        return self[code]


_BLANKS = _Blanks()


def normalised(text: str) -> str:
    """Return the form in which texts are compared.

    Compatibility forms are unified (NFKC) and case is folded; every run of punctuation, white space
    and control characters becomes one blank, none at the ends. Letters, marks, digits and symbols
    (emoji among them) stay. A text of punctuation alone stays as it is, white space aside.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(folded.translate(_BLANKS).split()) or " ".join(text.split())


def given_away(user: UserHistory, task: Task) -> tuple[str, ...]:
    """Return the ids of the queries whose text stands in the user's own history.

    Where an item is its own answer, LaMP-7, the gold answer counts as well: a query asks for a
    paraphrase back into the user's words.
    """
    history = {normalised(text) for item in user.profile for text in item.fields.values()}
    return tuple(
        query.id
        for query in user.queries
        if normalised(query_text(task, query)) in history
        or (not task.response_field and normalised(query.gold) in history)
    )


@dataclass(frozen=True, slots=True)
class PublicPart:
    """Public users without what the users they are kept apart from have.

    Attributes:
        users: Those with a record left.
        records: Records left out.
        queries: Queries left out.
        emptied: Users left out, as no record of theirs is left.
    """

    users: tuple[UserHistory, ...]
    records: int
    queries: int
    emptied: int

    def notes(self) -> Iterable[str]:
        """What a reader of the results should know."""
        if self.records or self.queries:
            gone = (
                f"; users left out with their last record: {self.emptied}" if self.emptied else ""
            )
            yield (
                f"public users' records whose text a target user has or is asked: {self.records} "
                f"left out, and {self.queries} of their queries{gone}"
            )


def kept_apart(
    public: Sequence[UserHistory], private: Iterable[UserHistory], task: Task, max_words: int
) -> PublicPart:
    """Leave out of ``public`` what stands among ``private``: neither M_base nor a prompt sees it.

    A record or query leaves when its text x equals the text of a private record or query.

    Args:
        public: Users that models may be tuned on.
        private: Users that are scored, with their queries.
        task: Their task.
        max_words: Where ``pairs`` are cut; texts are compared up to there.
    """
    texts = {text for user in private for text in _texts(user, task, max_words)}
    kept = [_without(user, texts, task, max_words) for user in public]
    users = tuple(user for user in kept if user.pairs)
    return PublicPart(
        users=users,
        records=sum(len(user.pairs) for user in public) - sum(len(user.pairs) for user in kept),
        queries=sum(len(user.queries) for user in public) - sum(len(user.queries) for user in kept),
        emptied=sum(bool(user.pairs) for user in public) - len(users),
    )


def person_notes(users: Sequence[UserHistory]) -> Iterable[str]:
    """Notice users whose histories say that one person stands under several ids."""
    owners: dict[tuple[str, str], list[int]] = {}
    for number, user in enumerate(users):
        for record in {(normalised(pair.input), normalised(pair.response)) for pair in user.pairs}:
            owners.setdefault(record, []).append(number)
    shared = Counter(
        pair
        for found in owners.values()
        if len(found) <= MOST_OWNERS
        for pair in combinations(found, 2)
    )
    alike = {
        number
        for pair, count in shared.items()
        if count >= FEWEST_SHARED and 2 * count >= min(len(users[each].pairs) for each in pair)
        for number in pair
    }
    if alike:
        yield (
            f"users who share {FEWEST_SHARED} records or more, and half of a history, with another "
            f"user: {len(alike)} of {len(users)}; one person may stand under several ids"
        )


def _texts(user: UserHistory, task: Task, max_words: int) -> Iterable[str]:
    yield from (normalised(pair.input) for pair in user.pairs)
    yield from (_asked(query, task, max_words) for query in user.queries)
    if not task.response_field:  # a tweet is asked for, so the answer is a record's text
        yield from (normalised(query.gold) for query in user.queries)


def _asked(query: Query, task: Task, max_words: int) -> str:
    return normalised(cut_words(query_text(task, query), max_words))


def _without(user: UserHistory, texts: set[str], task: Task, max_words: int) -> UserHistory:
    kept = [place for place, each in enumerate(user.pairs) if normalised(each.input) not in texts]
    queries = tuple(
        query
        for query in user.queries
        if _asked(query, task, max_words) not in texts
        and (task.response_field or normalised(query.gold) not in texts)
    )
    if len(kept) == len(user.pairs) and len(queries) == len(user.queries):
        return user
    return replace(
        user,
        profile=tuple(user.profile[place] for place in kept),
        pairs=tuple(user.pairs[place] for place in kept),
        queries=queries,
    )
