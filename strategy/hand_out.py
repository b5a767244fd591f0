"""Who gets whose kept pairs: everybody the own ones or, as a control, somebody else's."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from conf.seeds import derive_seed
from lamp.records import Pair

KeptPairs = Mapping[str, tuple[Pair, ...]]  # user -> pairs
CIRCLE = 4  # users of a like number of pairs who give them to each other


def own_pairs(kept: KeptPairs, _: int) -> KeptPairs:
    """Every user gets what was made from the user's own records, whatever the seed."""
    return kept


def others_pairs(kept: KeptPairs, seed: int) -> KeptPairs:
    """Every user gets another user's pairs, about as many as the own ones.

    Users are ordered by their number of pairs, equal ones at random, and cut into circles of
    :data:`CIRCLE`, the last of up to twice as many less one; within a circle everybody gets the
    pairs of the next one, in a random order. Nobody gets the own pairs, and no pairs are given
    twice. Who has no pairs gets none; nor does a user who is the only one with some, as there is
    nobody to swap with: this user trains on D_u alone.

    Args:
        kept: Per user the pairs made from the user's own records.
        seed: The run's root seed.
    """
    draw = Random(derive_seed(seed, "others' pairs"))
    having = [user for user in sorted(kept) if kept[user]]
    draw.shuffle(having)
    having.sort(key=lambda user: len(kept[user]))  # stable: equal numbers stay as drawn
    giver: dict[str, str] = {}
    for start in range(0, max(len(having) // CIRCLE, 1) * CIRCLE, CIRCLE):
        is_last = start + 2 * CIRCLE > len(having)
        circle = having[start : None if is_last else start + CIRCLE]
        draw.shuffle(circle)
        if len(circle) > 1:
            giver |= dict(zip(circle, [*circle[1:], circle[0]], strict=True))
    return {user: kept[giver[user]] if user in giver else () for user in kept}
