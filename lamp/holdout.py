"""How much of a user is used: records held out as queries, and limits on records and queries.

A held-out record is asked as it would be trained, and its own response is the gold answer. What is
held out or left out depends on the order of a user's records alone: by date where every record of
the data has a readable one, else a permutation that is drawn once per user. The last ones are held
out first; of the rest the newest stay, or the first of the permutation. By date, what may follow a
held-out record is in no part; of one date, the file's order counts. So under a larger limit the
same records stay and further ones join them, and under a larger share further ones are asked.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_UP, Decimal

from conf.errors import ConfigError
from conf.seeds import derive_seed
from lamp.contamination import normalised
from lamp.dates import Key, date_key, precedes
from lamp.metrics import is_answer
from lamp.records import Pair, Query, UserHistory
from lamp.tasks import Task, training_prompt


@dataclass(frozen=True, slots=True)
class Portion:
    """What is taken of every user's records.

    Attributes:
        holdout: Share of a user's records that become queries; None asks the files' own.
        max_records: Records of D_u at most; None for all.
        max_queries: Queries at most; None for all.
        seed: Seed of the permutations, the same for every run of the same data.
        by_date: The order is that of the dates, else the permutation of ``seed``.
    """

    holdout: float | None
    max_records: int | None
    max_queries: int | None
    seed: int
    by_date: bool = False


def check_task(task: Task, key: str) -> None:
    """Refuse tasks whose records are no questions with an answer.

    Args:
        task: The task.
        key: The setting that asks for such questions, for the error.

    Raises:
        ConfigError: If a pair is not asked as a query is.
    """
    if not task.asks_as_trained:
        raise ConfigError(
            f"{key}: records of {task.name} make no queries, as its pairs are trained in "
            "another wording than it asks; take lamp_2, lamp_3, lamp_4 or lamp_5"
        )


def as_query(user_id: str, task: Task, pair: Pair) -> Query:
    """A record as a question; its id is unique among all users."""
    prompt, answer = training_prompt(task, pair)
    return Query(f"{user_id}/{pair.id}", prompt, answer)


def all_dated(users: Iterable[UserHistory]) -> bool:
    """Whether every record has a date that can be read, so that records can be taken by date."""
    return all(
        item.date is not None and date_key(item.date) is not None
        for user in users
        for item in user.profile
    )


def take_parts(
    users: Sequence[UserHistory], task: Task, portion: Portion
) -> tuple[list[UserHistory], tuple[str, ...]]:
    """Take every user's part; what remains keeps the order of the file.

    Returns:
        The users with D_u and the queries it precedes, the files' own ones not yet limited, and
        what a reader of the results should know.
    """
    if portion.holdout is None and portion.max_records is None:
        return list(users), ()
    made = [_take(user, task, portion) for user in users]
    taken = [history for history, _, _ in made]
    left_out = sum(each for _, each, _ in made)
    tied = sum(each for _, _, each in made)
    return taken, tuple(_notes(users, taken, left_out, tied, portion))


def limit_records(
    users: Sequence[UserHistory], task: Task, portion: Portion, most: int | None
) -> tuple[list[UserHistory], tuple[str, ...]]:
    """Users with at most ``most`` records each, in the order of ``portion``, and a note of it.

    Under a larger limit the same records stay and further ones join them. Queries stay as they are.
    """
    if most is None:
        return list(users), ()
    limit = replace(portion, holdout=None, max_records=most)
    taken, _ = take_parts(users, task, limit)
    kept, had = (sum(len(user.pairs) for user in each) for each in (taken, users))
    return taken, (f"target_records={most}: {kept} of {had} records of the target users stay",)


def first_queries(users: Iterable[UserHistory], most: int | None) -> list[UserHistory]:
    """Users with at most so many queries each: the first of the file."""
    return [replace(user, queries=user.queries[:most]) for user in users]


def _take(user: UserHistory, task: Task, portion: Portion) -> tuple[UserHistory, int, int]:
    """One user's part, the records in no part, and those of a query's date: see :func:`_notes`."""
    order = _order(user, portion)
    queries, left_out, tied = user.queries, 0, 0
    if portion.holdout is not None:
        asked, rest = _parted(user, task, portion, order)
        queries = tuple(as_query(user.user_id, task, user.pairs[place]) for place in sorted(asked))
        order, left_out = rest, len(order) - len(asked) - len(rest)
        dates = {_date(user, place) for place in asked} if portion.by_date else set()
        tied = sum(_date(user, place) in dates for place in rest)
    kept = sorted(_newest(order, portion))
    history = replace(
        user,
        profile=tuple(user.profile[place] for place in kept),
        pairs=tuple(user.pairs[place] for place in kept),
        queries=queries,
    )
    return history, left_out, tied


def _notes(
    users: Sequence[UserHistory],
    taken: Sequence[UserHistory],
    left_out: int,
    tied: int,
    portion: Portion,
) -> Iterable[str]:
    if portion.holdout is not None:
        which = "the newest ones" if portion.by_date else "drawn at random"
        yield (
            f"{portion.holdout:g} of each user's records, {which}, are asked as queries; "
            "the files' own questions are not"
        )
    if left_out:
        yield (
            "records that are left out of D_u, as they repeat a held-out one, follow it, or their "
            f"date does not tell which came first: {left_out}"
        )
    if tied:
        yield (
            "records of D_u with the date of a held-out one, before which the file lists them: "
            f"{tied}"
        )
    held = 0 if portion.holdout is None else sum(len(user.queries) for user in taken)
    rest = sum(len(user.pairs) for user in users) - held - left_out
    kept = sum(len(user.pairs) for user in taken)
    if kept < rest:
        which = "the newest ones" if portion.by_date else "drawn at random"
        yield f"max_records={portion.max_records}: {kept} of {rest} records stay, {which}"


def _order(user: UserHistory, portion: Portion) -> list[int]:
    """Places of a user's records: oldest first, or in the user's own random order."""
    places = list(range(len(user.pairs)))
    if portion.by_date:
        return sorted(places, key=lambda place: (_date(user, place), place))
    random.Random(derive_seed(portion.seed, "records", user.user_id)).shuffle(places)
    return places


def _date(user: UserHistory, place: int) -> Key:
    return date_key(user.profile[place].date or "") or ()


def _may_follow(user: UserHistory, place: int, asked: Iterable[int]) -> bool:
    """Whether a record may come after a query; of one date, the file lists the earlier first."""
    own = _date(user, place)
    return not all(
        precedes(own, date) or (own == date and place < query)
        for query in asked
        for date in [_date(user, query)]
    )


def _newest(order: Sequence[int], portion: Portion) -> Sequence[int]:
    if portion.max_records is None:
        return order
    return order[-portion.max_records :] if portion.by_date else order[: portion.max_records]


def _parted(
    user: UserHistory, task: Task, portion: Portion, order: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Places of the queries, and of the records that may be trained; of the latter one at least."""
    asked = _held_out(user, task, portion, order)
    while True:
        texts = {normalised(user.pairs[place].input) for place in asked}
        rest = [
            place
            for place in order
            if normalised(user.pairs[place].input) not in texts
            and not (portion.by_date and _may_follow(user, place, asked))
        ]
        if rest or not asked:
            return asked, rest
        asked.pop()  # nothing precedes the earliest of them


def _held_out(user: UserHistory, task: Task, portion: Portion, order: Sequence[int]) -> list[int]:
    """Places of the records to be queries, newest first: each text once, one at least stays."""
    texts = [normalised(pair.input) for pair in user.pairs]
    share = Decimal(str(portion.holdout)) * len(order)
    count = min(
        int(share.to_integral_value(ROUND_HALF_UP)),
        len(set(texts)) - 1,
        len(order) if portion.max_queries is None else portion.max_queries,
    )
    asked: dict[str, int] = {}
    for place in reversed(order):
        if len(asked) == count:
            break
        if texts[place] not in asked and is_answer(task, user.pairs[place].response):
            asked[texts[place]] = place
    return list(asked.values())
