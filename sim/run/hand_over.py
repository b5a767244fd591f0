"""Hands messages to the device processes of a simulation, each looked at once.

Flower 1.41 asks its message store for every node in turn, ten times a second, and each question
goes through all open messages. Nodes times messages at every look: at 1,000 users that took a whole
core. Here a look goes back from the newest message to the first that was handed over before.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from queue import Queue
from threading import Event

from flwr.app import Message
from flwr.server.superlink.linkstate.in_memory_linkstate import InMemoryLinkState

LOOK_S = 0.1  # Flower's own pause


def hand_over(
    state: InMemoryLinkState,
    queue: Queue[Message],
    nodes_mapping: Mapping[int, int],  # noqa: ARG001  # Flower's signature
    f_stop: Event,
) -> None:
    """Stand in for Flower's ``add_messages_to_queue``; messages keep the order of their sending.

    Args:
        state: Flower's message store.
        queue: Where the device processes take their messages.
        nodes_mapping: Partition by node; not used.
        f_stop: Set at the end of the simulation.
    """
    while not f_stop.is_set():
        for message in take_new(state):
            queue.put(message)
        f_stop.wait(LOOK_S)


def take_new(state: InMemoryLinkState) -> list[Message]:
    """Return the messages that were not handed over yet, oldest first, and mark them as delivered.

    The store keeps the order of sending, and all that is new is taken at once: what is not
    delivered stands at its end.
    """
    new = []
    with state.lock:
        for message in reversed(state.message_ins_store.values()):
            if message.metadata.delivered_at:
                break
            new.append(message)
        delivered_at = datetime.now(UTC).isoformat()
        for message in new:
            message.metadata.delivered_at = delivered_at
    return new[::-1]
