"""cdcda with another user's kept pairs: is its gain personal, or mere regularisation?

    python -m sim plugins=[examples/cdcda_shuffled.py] methods=[direct_ft,cdcda,cdcda_shuffled] \
        'contrasts=["cdcda - cdcda_shuffled"]'

Augmentation, filters, seeds and training are cdcda's; only whose pairs a device gets differs. Each
user gets those of the user with the nearest number of kept pairs, so that the doses are nearly
equal. A simulation may do that; a server must not hand one user's pairs to another, so the method
is refused with engine=deployment.
"""

from __future__ import annotations

from dataclasses import replace

from protocol.wire import WIRE_TABLE
from strategy.method import KeptPairs
from strategy.methods import METHODS, register


def swapped(kept: KeptPairs) -> KeptPairs:
    """Hand every user's pairs to another user.

    Users are ordered by their number of pairs and swap within neighbouring pairs of users, the last
    three in a circle where their number is odd. Who has no pairs gets none; nor does a user who is
    the only one with some.
    """
    having = sorted((user for user in kept if kept[user]), key=lambda user: (len(kept[user]), user))
    circles = [having[place : place + 2] for place in range(0, len(having), 2)]
    if len(circles) > 1 and len(circles[-1]) == 1:
        circles[-2:] = [circles[-2] + circles[-1]]
    giver = {
        user: circle[place - 1]
        for circle in circles
        if len(circle) > 1
        for place, user in enumerate(circle)
    }
    return {user: kept[giver[user]] if user in giver else () for user in kept}


register(
    replace(
        METHODS["cdcda"],
        name="cdcda_shuffled",
        about="cdcda with the kept pairs of another user (control)",
        title="CDCDA\nshuffled",
        colour="#999933",
        reference="",
        studied=False,
        variant_of="cdcda",
        hand_out=swapped,
    ),
    WIRE_TABLE["cdcda"],
)
