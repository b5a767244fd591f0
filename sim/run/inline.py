"""The same apps in one process without Ray: for debugging and for tests of everything but Ray.

Messages and contexts are pickled as Ray would pickle them, so what cannot travel fails here too.
Devices run one after the other, in the order of their partitions.
"""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable, Iterable
from typing import Any
from uuid import uuid4

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from typing_extensions import override

from sim.run.server import ServerInputs, run_experiment
from strategy.progress import Progress

RUN_ID = 1
FIRST_NODE = 1000


class InlineGrid(Grid):
    """A Grid that calls the ClientApp when a message is pushed."""

    def __init__(self, app: ClientApp, num_nodes: int, run_config: dict[str, Any]) -> None:
        """Make ``num_nodes`` nodes, each with its partition id."""
        TaskIdentity.task_id, TaskIdentity.run_id = 1, RUN_ID
        TaskIdentity.node_id = SUPERLINK_NODE_ID
        self._app, self._run = app, Run.create_empty(RUN_ID)
        self._contexts = {
            FIRST_NODE + index: Context(
                run_id=RUN_ID,
                node_id=FIRST_NODE + index,
                state=RecordDict(),
                run_config=dict(run_config),
                node_config={"partition-id": index, "num-partitions": num_nodes},
            )
            for index in range(num_nodes)
        }
        self._replies: dict[str, Message] = {}

    def set_run(self, run: Run) -> None:
        """Set the run."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Create a message."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """All nodes; they are there from the start."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Deliver each message and keep its reply until it is pulled."""
        return [self._deliver(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Hand over the replies to ``message_ids``."""
        return [
            self._replies.pop(message_id)
            for message_id in list(message_ids)
            if message_id in self._replies
        ]

    @override
    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Deliver and collect; ``timeout`` has no meaning here."""
        return self.pull_messages(self.push_messages(messages))

    def _deliver(self, message: Message) -> str:
        _name(message)
        node = message.metadata.dst_node_id
        travelled, context = pickle.loads(pickle.dumps((message, self._contexts[node])))
        try:
            reply = self._app(message=travelled, context=context)
            self._contexts[node] = context
        except Exception as error:
            reason = f"{type(error)}:<'{error}'>\n{traceback.format_exc()}"
            reply = Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=message)
        _name(reply)
        message_id = str(message.metadata.message_id)
        self._replies[message_id] = pickle.loads(pickle.dumps(reply))
        return message_id


def run_inline(
    run_config: dict[str, Any],
    inputs: ServerInputs,
    progress: Progress,
    on_arm: Callable[[str], None] = lambda _: None,
) -> None:
    """Run the experiment of ``inputs`` in this process."""
    from clients.app import app

    grid = InlineGrid(app, inputs.config.users, run_config)
    run_experiment(grid, inputs, progress, on_arm)


def _name(message: Message) -> None:
    message.metadata.__dict__["_message_id"] = str(uuid4())
