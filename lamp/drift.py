"""Histories cut at a date: what precedes it is D_u, what follows becomes queries with an age.

A later record is asked as it would be trained, and its own response is the gold answer; its age is
the number of whole years since the cut. Ages are the simulation's knowledge: a query itself does
not tell its date. The files' own questions bear no date and are not asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from conf.schema import DriftConfig
from lamp.contamination import normalised
from lamp.dates import Key, date_key, date_of, precedes
from lamp.holdout import as_query
from lamp.metrics import is_answer
from lamp.records import Pair, ProfileItem, UserHistory
from lamp.tasks import Task
from storage.text_files import shown

DAY = (1, 1)  # month and day, where a date does not tell them
# One in so many of a public user's records before the cut, the newest, is asked as a query.
ASKED = 3


@dataclass(frozen=True, slots=True)
class CutHistory:
    """One user at the cut, or at a later refresh.

    Attributes:
        history: D_u and the queries that come after it.
        ages: Query id -> whole years between cut and query.
        unusable: Later records that are no query: they repeat an earlier one, or their response
            is no answer of the task.
        undated: Records whose date is too rough to tell on which side of the cut they stand; they
            are neither in D_u nor asked.
    """

    history: UserHistory
    ages: Mapping[str, int]
    unusable: int
    undated: int


def cut_history(
    user: UserHistory, task: Task, settings: DriftConfig, refresh: int = 0
) -> CutHistory:
    """Cut one user's history at ``settings.cut``, or ``refresh`` years later.

    Args:
        user: The whole history.
        task: Its task.
        settings: Date of the cut, and years whose records become queries.
        refresh: D_u holds what precedes the start of this year after the cut; 0 asks all years,
            another number that year alone.

    Raises:
        DataError: If a record has no readable date.
    """
    owner, remedy = f"user {shown(user.user_id)}", "leave drift.cut out"
    keys = [date_of(item, owner, "drift.cut", remedy) for item in user.profile]
    cut = date_key(settings.cut or "") or ()
    clear = [place for place, key in enumerate(keys) if _has_age(key, cut)]
    order = sorted(clear, key=lambda place: (keys[place], place))
    ages = [_whole_years(keys[place], cut) for place in order]
    items = [user.profile[place] for place in order]
    pairs = [user.pairs[place] for place in order]
    known = sum(age < refresh for age in ages)
    scored = (refresh,) if refresh else range(settings.years)
    later = [place for place, age in enumerate(ages) if age in scored]
    fresh = _fresh(items, pairs)
    asked = [place for place in later if place in fresh and is_answer(task, pairs[place].response)]
    queries = tuple(as_query(user.user_id, task, pairs[place]) for place in asked)
    return CutHistory(
        history=UserHistory(user.user_id, tuple(items[:known]), tuple(pairs[:known]), queries),
        ages={query.id: ages[place] for query, place in zip(queries, asked, strict=True)},
        unusable=len(later) - len(asked),
        undated=len(keys) - len(clear),
    )


def is_scorable(cut: CutHistory, years: int) -> bool:
    """Whether a user has records before the cut and a query in each of ``years`` after it."""
    return bool(cut.history.pairs) and set(cut.ages.values()) >= set(range(years))


def as_public(cut: CutHistory, task: Task) -> UserHistory:
    """A public user who knows nothing of what follows the cut: the newest records are asked."""
    user = cut.history
    kept = len(user.pairs) - len(user.pairs) // ASKED
    asked = [pair for pair in user.pairs[kept:] if is_answer(task, pair.response)]
    queries = tuple(as_query(user.user_id, task, pair) for pair in asked)
    return UserHistory(user.user_id, user.profile[:kept], user.pairs[:kept], queries)


def notes(settings: DriftConfig, targets: Sequence[CutHistory], left_out: int) -> Iterable[str]:
    """What a reader of the results should know about the cut.

    Args:
        settings: The cut.
        targets: The target users.
        left_out: Users without a record before the cut.
    """
    when = f", D_u up to {settings.refresh} years later" if settings.refresh else ""
    yield (
        f"histories are cut at {settings.cut}{when}; later records are asked as queries, the "
        "files' own questions, which bear no date, are not"
    )
    if unusable := sum(each.unusable for each in targets):
        yield f"later records that are no query (repeated, or without a usable answer): {unusable}"
    if undated := sum(each.undated for each in targets):
        yield (
            "records that are left out, as their date does not tell on which side of "
            f"{settings.cut} they stand: {undated}"
        )
    if left_out:
        yield f"users without a record before {settings.cut}, who are left out: {left_out}"


def _has_age(key: Key, cut: Key) -> bool:
    """Whether ``key`` is before the cut, or the whole years from there to it are known."""
    own, day = key[1:3], cut[1:3]
    spans = own == day[: len(own)] and day[len(own) :] != DAY[len(own) :]  # "2013", cut in June
    return precedes(key, cut) or not spans


def _whole_years(key: Key, cut: Key) -> int:
    """Whole years from ``cut`` to ``key``, below 0 for what precedes it."""
    return key[0] - cut[0] - (_day(key) < _day(cut))


def _day(key: Key) -> Key:
    return (*key[1:3], *DAY)[: len(DAY)]


def _fresh(items: Sequence[ProfileItem], pairs: Sequence[Pair]) -> set[int]:
    """Places whose input stands in no earlier record, normalised."""
    seen: set[str] = set()
    fresh = set()
    for place, (item, pair) in enumerate(zip(items, pairs, strict=True)):
        text = normalised(pair.input)
        if text not in seen:
            fresh.add(place)
        seen.update((text, *map(normalised, item.fields.values())))
    return fresh
