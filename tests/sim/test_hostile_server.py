"""A server that asks for everything, again and again, gets what its users consented to, no more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.supercore.task_identity import TaskIdentity
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clients import folder, share_order
from clients.app import app
from clients.outbound import largest_share
from clients.policy import NO_BUDGET, Policy
from conf.errors import CdcdaError
from lamp.records import Pair, UserHistory
from protocol.codec import decode, encode
from protocol.messages import HelloReply, HelloRequest, ShareReply, ShareRequest
from protocol.wire import serialise

RECORDS = {"ana": 20, "ben": 7, "eve": 11}
RATIOS = {"ana": 0.35, "ben": 0.0, "eve": 0.6}
USERS = tuple(RECORDS)
TEXTS = st.text(max_size=12)
CONFIG_VALUES = st.one_of(st.booleans(), st.integers(-(2**40), 2**40), st.floats(0, 9), TEXTS)


@pytest.fixture(scope="module")
def devices(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("devices")
    for user, number in RECORDS.items():
        pairs = tuple(Pair(f"{user}{n}", f"canary{user}{n}.", f"y{n}") for n in range(number))
        folder.create(
            root,
            UserHistory(user, (), pairs, ()),
            Policy(RATIOS[user], budget=NO_BUDGET),
            b"k" * 32,
        )
    return root


class Server:
    """Sends what it likes to one device and keeps every byte that comes back."""

    def __init__(self, devices: Path, user: str) -> None:
        self.device = devices / folder.folder_name(user)
        self.records: set[str] = set()
        self.wire = b""

    def ask(self, body, run_config: dict, run_id: int) -> Message:
        """A fresh process each time: the device remembers nothing between two messages."""
        context = Context(
            run_id=run_id,
            node_id=run_id,
            node_config={"device-folder": str(self.device)},
            state=RecordDict(),
            run_config={**run_config, "client-limit-s": 60.0},
        )
        TaskIdentity.task_id = TaskIdentity.run_id = run_id
        TaskIdentity.node_id = SUPERLINK_NODE_ID
        message = Message(encode(body), dst_node_id=1, message_type=body.TYPE)
        message.metadata.__dict__["_message_id"] = "1"
        reply = app(message=message, context=context)
        self.wire += reply.error.reason.encode() if reply.has_error() else serialise(reply.content)
        return reply

    def ask_for_records(self, ratios: list[float], run_config: dict, run_id: int) -> None:
        reply = self.ask(ShareRequest(ratios=tuple(ratios)), run_config, run_id)
        if reply.has_error():  # a refusal is as good as a small answer
            return
        share = decode(ShareReply, reply.content)
        self.records |= {pair.id for pair in share.pairs}


hostile = given(
    user=st.sampled_from(USERS),
    asked=st.lists(
        st.lists(
            st.one_of(st.just(2.0), st.floats(allow_nan=True, allow_infinity=True)),
            min_size=1,
            max_size=4,
        ),
        min_size=1,
        max_size=5,
    ),
    run_configs=st.lists(
        st.dictionaries(
            st.sampled_from(["seed", "user", "user_id", "ratio", "privacy.ratio", "partition-id"]),
            CONFIG_VALUES,
        ),
        min_size=1,
        max_size=4,
    ),
    victim=st.sampled_from(USERS),
    replays=st.integers(1, 2),
)
fast = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@fast
@hostile
def test_the_union_of_all_replies_stays_inside_the_consented_records(
    devices, user, asked, run_configs, victim, replays
):
    server = Server(devices, user)
    roots = {"devices-root": str(devices / folder.folder_name(victim))}  # another one's folder
    for number, ratios in enumerate(asked * replays):
        run_config = {**run_configs[number % len(run_configs)], **roots}
        server.ask_for_records(ratios, run_config, run_id=number + 1)
    consented = largest_share(RATIOS[user], RECORDS[user])
    assert len(server.records) <= consented
    assert all(name.startswith(user) for name in server.records)
    seen = {name for name in all_records() if f"canary{name}.".encode() in server.wire}
    assert seen == server.records


def all_records() -> Iterator[str]:
    return (f"{user}{n}" for user, number in RECORDS.items() for n in range(number))


def test_asking_for_everything_gets_exactly_what_is_allowed(devices):
    for user in USERS:
        server = Server(devices, user)
        server.ask_for_records([2.0, 1.0], {}, 1)
        assert len(server.records) == largest_share(RATIOS[user], RECORDS[user])


def test_a_device_says_who_it_is_whatever_the_server_claims(devices):
    reply = Server(devices, "ana").ask(
        HelloRequest(version=1), {"user_id": "eve", "partition-id": 2}, run_id=7
    )
    assert decode(HelloReply, reply.content).user_id == "ana"


def test_nothing_that_a_server_sends_changes_the_policy_or_the_secret(devices):
    for user in USERS:
        share_order.fixed(folder.read(devices / folder.folder_name(user)))
    before = {user: device_bytes(devices, user) for user in USERS}
    for user in USERS:
        server = Server(devices, user)
        with refused():
            server.ask(ShareRequest(ratios=(1e308, -1.0)), {"secret": "x", "ratio": 1.0}, 3)
    assert before == {user: device_bytes(devices, user) for user in USERS}


@contextmanager
def refused() -> Iterator[None]:
    """A refusal is as good as a small answer."""
    try:
        yield
    except CdcdaError:
        return


def device_bytes(devices: Path, user: str) -> dict[str, bytes]:
    own = devices / folder.folder_name(user)
    kept = ("history.json", "policy.json", "secret.bin", "order.json")
    return {name: (own / name).read_bytes() for name in kept if (own / name).is_file()}


def test_a_policy_is_read_back_as_it_was_written(devices):
    policy = Policy(0.4, ("a",), "sensitive", ("input",), ("weights",))
    own = devices / folder.folder_name("ben")
    kept = folder.read(own).policy
    folder.write_policy(own, policy)
    assert asdict(folder.read(own).policy) == asdict(policy)
    folder.write_policy(own, kept)
