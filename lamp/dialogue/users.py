"""From dialogues to users: each has a domain of their own, a stream and held-out dialogues.

No dialogue goes to two users, and no question stands twice in the data: repeats are counted and
left out, so a held-out question is never in anybody's stream. Users take their domains in turn,
the larger domains oftener; a user's stream mixes the own domain with the others in seeded order.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from conf.errors import DataError
from conf.schema import DialogueConfig
from conf.seeds import derive_seed
from lamp.dialogue.dialogues import Dialogue, read_folder
from lamp.records import Pair, ProfileItem, Query, UserHistory
from lamp.tasks import cut_words

Pools = dict[str, list[Dialogue]]


def dialogue_users(
    data: str, config: DialogueConfig, max_words: int
) -> tuple[tuple[UserHistory, ...], tuple[str, ...]]:
    """Read the folder or file ``data`` and split it over as many users as it makes.

    Returns:
        The users, and what the log and the report should say about the data.

    Raises:
        DataError: If the data cannot be read, or are too few for one user.
    """
    if data == "miniature":
        raise DataError(
            "task=dialogue: the miniature world has no dialogues; give data=<folder of dialogues>"
        )
    read = read_folder(Path(data).expanduser())
    usable = _usable(read, config.max_answer_words)
    users = split(usable, config, max_words)
    domains = sorted({each.domain for each in usable})
    notes = (
        f"dialogues: {len(usable)} of {len(read)} are used; the others repeat a question, have an "
        f"answer of more than {config.max_answer_words} words, or lack one of the two",
        f"domains: {', '.join(domains)}; {len(users)} users with {config.records} "
        f"dialogues and {config.queries} held-out ones each",
    )
    return users, notes


def split(
    dialogues: Sequence[Dialogue], config: DialogueConfig, max_words: int
) -> tuple[UserHistory, ...]:
    """Make as many users as the dialogues allow.

    Raises:
        DataError: If they are too few for one user.
    """
    need = config.records + config.queries
    count = len(dialogues) // need
    if not count:
        raise DataError(
            f"data: expected at least {need} different dialogues for one user, got "
            f"{len(dialogues)}; lower dialogue.records or take more data"
        )
    rng = random.Random(derive_seed(config.seed, "dialogue users"))
    pools: Pools = {}
    for each in dialogues:
        pools.setdefault(each.domain, []).append(each)
    for name in sorted(pools):
        rng.shuffle(pools[name])
    taken = [_take(pools, need, config.focus, rng) for _ in range(count)]
    rng.shuffle(taken)  # so that the first users are not all of the largest domain
    return tuple(
        _history(f"user-{number:04d}", own, config.queries, max_words)
        for number, own in enumerate(taken)
    )


def _take(pools: Pools, need: int, focus: float, rng: random.Random) -> list[Dialogue]:
    """Take one user's dialogues: of the domain that has most left, and of any domain."""
    domain = max(sorted(pools), key=lambda name: len(pools[name]))
    own = min(round(focus * need), len(pools[domain]))
    taken = [pools[domain].pop() for _ in range(own)]
    while len(taken) < need:
        names = sorted(name for name in pools if pools[name])
        name = rng.choices(names, weights=[len(pools[name]) for name in names])[0]
        taken.append(pools[name].pop())
    rng.shuffle(taken)
    return taken


def _history(
    user_id: str, dialogues: Sequence[Dialogue], num_queries: int, max_words: int
) -> UserHistory:
    """A user whose last dialogues are held out."""
    stream, held_out = dialogues[:-num_queries], dialogues[-num_queries:]
    cut = [
        (cut_words(each.question, max_words), cut_words(each.answer, max_words)) for each in stream
    ]
    return UserHistory(
        user_id,
        profile=tuple(
            ProfileItem(each.id, {"question": x, "answer": y, "domain": each.domain})
            for each, (x, y) in zip(stream, cut, strict=True)
        ),
        pairs=tuple(Pair(each.id, x, y) for each, (x, y) in zip(stream, cut, strict=True)),
        queries=tuple(
            Query(each.id, cut_words(each.question, max_words), each.answer) for each in held_out
        ),
    )


def _usable(dialogues: Sequence[Dialogue], max_answer_words: int) -> list[Dialogue]:
    """Leave out repeated questions, white space aside, overlong answers, and what has but one."""
    first: dict[str, Dialogue] = {}
    for each in dialogues:
        if each.question and 0 < len(each.answer.split()) <= max_answer_words:
            first.setdefault(" ".join(each.question.split()), each)
    return list(first.values())
