"""What a user costs beside the models does not depend on how many users there are: counted work."""

from __future__ import annotations

import sys
from collections.abc import Callable
from threading import Event, Thread
from types import SimpleNamespace

import pytest
from flwr.app import Context, Message, Metadata
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.proto.task_pb2 import Task
from flwr.server.superlink.fleet.vce import vce_api
from flwr.server.superlink.fleet.vce.backend import raybackend
from flwr.server.superlink.fleet.vce.metrics import VceMetrics
from flwr.server.superlink.linkstate import LinkStateFactory
from flwr.server.superlink.linkstate.in_memory_linkstate import RunRecord
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME, NOOP_FEDERATION_ID
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.federation import NoOpFederationManager
from flwr.superlink.grid import InMemoryGrid

from clients.app import app as clients_app
from clients.folder import Policy, create
from lamp.records import Pair, ProfileItem, UserHistory
from protocol.codec import encode
from protocol.messages import PROTOCOL_VERSION, HelloReply, HelloRequest
from sim.run.engine import _keep_devices_at_work
from sim.run.hand_over import take_new
from sim.run.inline import InlineGrid
from strategy import grid as grid_module
from strategy.grid import POLL_S, POLLED, AccountedGrid
from strategy.ledger import Ledger
from strategy.progress import LoggedProgress
from strategy.registry import discover_clients, wait_for_nodes
from strategy.shares import collect_shares

REQUEST = HelloRequest(version=PROTOCOL_VERSION)


def hello(node: int) -> Message:
    return Message(encode(REQUEST), node, REQUEST.TYPE, ttl=3600, group_id="hello")


def hello_reply(message: Message, user: str) -> Message:
    return Message(encode(HelloReply(user_id=user, version=PROTOCOL_VERSION)), reply_to=message)


class Simulation:
    """Flower's own message store, grid and loop, without Ray."""

    def __init__(self, users: int) -> None:
        run = Run.create_empty(1)
        run.primary_task_id, run.federation_id = 1, NOOP_FEDERATION_ID
        TaskIdentity.task_id = TaskIdentity.run_id = 1
        TaskIdentity.node_id = SUPERLINK_NODE_ID
        self._stores = LinkStateFactory(
            FLWR_IN_MEMORY_DB_NAME, NoOpFederationManager(), ObjectStoreFactory()
        )
        self.state = self._stores.state()
        self.state.run_ids[1] = RunRecord(run=run)
        self.state.task_store[1] = Task(task_id=1, run_id=1)
        self.grid = InMemoryGrid(self._stores)
        self.grid.set_run(run)
        self.nodes = vce_api._register_nodes(users, self._stores)
        self._infos = vce_api._register_node_info_stores(self.nodes, run)
        self._stop = Event()
        self._loop = Thread(
            target=lambda: vce_api.run_api(
                lambda: None, Backend, self.nodes, self._stores, self._infos, self._stop,
                VceMetrics(),
            )
        )  # fmt: skip

    def __enter__(self) -> Simulation:
        self._loop.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._loop.join()


class Backend:
    """Two processes' worth of devices that answer at once."""

    num_workers = 2

    def build(self, app: ClientApp) -> None:
        pass

    def terminate(self) -> None:
        pass

    def process_message(self, message: Message, context: Context) -> tuple[Message, Context]:
        return hello_reply(message, f"user-{context.node_config['partition-id']:04d}"), context


@pytest.fixture
def at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((vce_api, "add_messages_to_queue"), (raybackend, "BasicActorPool")):
        monkeypatch.setattr(module, name, getattr(module, name))  # puts it back at the end
    _keep_devices_at_work(2)


def test_flower_never_searches_all_messages_for_a_node(at_work, tmp_path, monkeypatch):
    searched = []
    with Simulation(120) as simulation:
        search = simulation.state.get_message_ins
        monkeypatch.setattr(
            simulation.state,
            "get_message_ins",
            lambda *args, **options: searched.append(args) or search(*args, **options),
        )
        accounted = AccountedGrid(simulation.grid, Ledger(tmp_path / "l.jsonl"), 0, stall_s=60)
        accounted.know({node: f"user-{index:04d}" for node, index in simulation.nodes.items()})
        for _ in range(2):
            replies = accounted.send_and_receive([hello(node) for node in simulation.nodes])
            assert [accounted.user_of(each) for each in replies] == [
                f"user-{index:04d}" for index in range(120)
            ]
    assert not searched


@pytest.mark.parametrize("users", [50, 200])
def test_each_message_is_looked_at_once_before_it_is_handed_over(users, monkeypatch):
    simulation, looks = Simulation(users), 10
    read: list[Metadata] = []
    own = Metadata.delivered_at
    monkeypatch.setattr(
        Metadata,
        "delivered_at",
        property(lambda self: read.append(self) or own.fget(self), own.fset),
    )
    nodes, taken = list(simulation.nodes), []
    for start in range(0, users, users // looks):
        simulation.grid.push_messages([hello(node) for node in nodes[start:][: users // looks]])
        read.clear()
        taken += take_new(simulation.state)
        assert len(read) <= users // looks + 1  # the new ones, and the last of the old
        assert take_new(simulation.state) == []
    assert [message.metadata.dst_node_id for message in taken] == nodes


@pytest.mark.parametrize("users", [50, 200, 800])
def test_waiting_for_replies_asks_for_each_message_a_bounded_number_of_times(
    users, tmp_path, monkeypatch
):
    """A reply comes every 20 ms of a clock that only the pauses move."""
    work_s, clock, asked = 0.02, SimpleNamespace(now=0.0), []

    class Slow(InlineGrid):
        def pull_messages(self, message_ids):
            asked.append(len(message_ids))
            done = int(clock.now / work_s)
            ready = [each for each in self._replies if each in message_ids]
            return super().pull_messages(ready[: done - (users - len(self._replies))])

    def sleep(seconds: float) -> None:
        clock.now += seconds

    monkeypatch.setattr(
        grid_module, "time", SimpleNamespace(sleep=sleep, monotonic=lambda: clock.now)
    )
    app = ClientApp()

    @app.query("hello")
    def answer(message: Message, context: Context) -> Message:
        return hello_reply(message, f"user-{context.node_config['partition-id']}")

    inner = Slow(app, users, {})
    accounted = AccountedGrid(inner, Ledger(tmp_path / "l.jsonl"), 0, stall_s=60)
    replies = accounted.send_and_receive([hello(node) for node in inner.get_node_ids()])
    assert len(replies) == users
    assert sum(asked) <= users * (POLLED * work_s / POLL_S + 1)
    assert clock.now < users * work_s + POLL_S * max(1, users / POLLED)  # nobody waits for it


_opened: list[str] = []


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if event in ("open", "os.listdir", "os.scandir"):
        _opened.append(event)


@pytest.fixture
def count_files() -> Callable[[], int]:
    """Files and folders opened by this process since the last call."""
    if not getattr(sys, "_notes_opened", False):
        sys._notes_opened = True  # type: ignore[attr-defined]  # a hook stays to the end
        sys.addaudithook(_note)

    def count() -> int:
        found = len(_opened)
        _opened.clear()
        return found

    return count


def test_files_opened_per_user_do_not_grow_with_the_users(tmp_path, count_files):
    """Hello and share through the real devices and the real strategy."""
    per_user = {}
    for users in (20, 80):
        root = tmp_path / str(users)
        for number in range(users):
            texts = [(str(index), f"text {index} of {number}", "title") for index in range(4)]
            history = UserHistory(
                f"user-{number:04d}",
                profile=tuple(ProfileItem(i, {"text": a, "title": b}, "") for i, a, b in texts),
                pairs=tuple(Pair(*each) for each in texts),
                queries=(),
            )
            create(root / "devices", history, Policy(1.0), number.to_bytes(32, "big"))
        inner = InlineGrid(clients_app, users, {"devices-root": str(root / "devices")})
        accounted = AccountedGrid(inner, Ledger(root / "ledger.jsonl"), 0, stall_s=60)
        count_files()
        registry = discover_clients(accounted, wait_for_nodes(accounted, users, limit_s=1))
        collected = collect_shares(accounted, registry.nodes, [0.5, 1.0], LoggedProgress())
        per_user[users] = count_files() / users
        assert accounted.take_failures() == []
        assert len(collected.shares) == users
    assert per_user[20] > 4  # the devices' own files were seen
    assert per_user[80] <= 1.1 * per_user[20]
