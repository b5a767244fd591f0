"""One of twenty devices sends what it likes: it fails by name, the others' results stay the same.

The server is the product's own: registry, shares, strategy, averaging, run log. The devices are
twenty quick ones that answer as real ones do, one of which changes its replies on the wire.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from conf.schema import (
    BaselinesConfig,
    EvaluationConfig,
    FiltersConfig,
    QLoraConfig,
    TaskConfig,
)
from lamp.records import Pair
from protocol.codec import NUMBERS, TEXTS, decode, encode
from protocol.messages import (
    PROTOCOL_VERSION,
    AdaptReply,
    AdaptRequest,
    AnswerReply,
    AnswerRequest,
    HelloReply,
    ShareReply,
    ShareRequest,
)
from protocol.recipe import recipe_from_json
from protocol.settings import DeviceSettings
from sim.run.inline import FIRST_NODE, InlineGrid
from storage import jsonlines
from strategy.arms import make_arms
from strategy.augmenter import Augmented
from strategy.base_model import BaseModel, BaseModels
from strategy.cdcda import CdcdaPlm
from strategy.filters import Candidate
from strategy.grid import AccountedGrid
from strategy.ledger import DOWN, M_BASE, Ledger
from strategy.recipes import RecipeInputs
from strategy.registry import Fleet, discover_clients
from strategy.run_log import RunLog

USERS = tuple(f"user-{number:02d}" for number in range(20))
HOSTILE = 7
BOUND = {FIRST_NODE + place: user for place, user in enumerate(USERS)}
Change = Callable[[str, RecordDict], None]


def make_app(change: Change) -> ClientApp:
    app = ClientApp()

    def reply(message: Message, context: Context, body: Any) -> Message:
        content = encode(body)
        if context.node_config["partition-id"] == HOSTILE:
            change(message.metadata.message_type, content)
        return Message(content, reply_to=message)

    def user(context: Context) -> str:
        return USERS[int(context.node_config["partition-id"])]

    @app.query("hello")
    def hello(message: Message, context: Context) -> Message:
        body = HelloReply(user_id=user(context), version=PROTOCOL_VERSION)
        return reply(message, context, body)

    @app.query("share")
    def share(message: Message, context: Context) -> Message:
        asked = decode(ShareRequest, message.content)
        pairs = tuple(Pair(f"{user(context)}-{n}", f"text {n}", "title") for n in range(3))
        counts = tuple(round(3 * ratio) for ratio in asked.ratios)
        return reply(
            message, context, ShareReply(user_id=user(context), pairs=pairs, counts=counts)
        )

    @app.train("adapt")
    def adapt(message: Message, context: Context) -> Message:
        asked, place = decode(AdaptRequest, message.content), context.node_config["partition-id"]
        weights = {"a": np.full((2, 2), 1.0 + place / 100, dtype=np.float32)}
        federated = recipe_from_json(asked.recipe).federated
        body = AdaptReply(
            user_id=user(context), arm=asked.arm, steps=2, records=10 + place, synthetic=0,
            losses=(2.0, 1.0), tokens=9, seconds=0.0, peak_memory_bytes=1, adapter_bytes=1,
            weights=weights if federated else {},
        )  # fmt: skip
        return reply(message, context, body)

    @app.evaluate("answer")
    def answer(message: Message, context: Context) -> Message:
        asked = decode(AnswerRequest, message.content)
        names = ("gold", "predicted", "errors", "bertscore", "sums", "texts", "gold_texts")
        empty: dict[str, Any] = dict.fromkeys(names, ())
        body = AnswerReply(
            user_id=user(context), arm=asked.arm, num_queries=2,
            query_ids=(f"{user(context)}-q0", f"{user(context)}-q1"), rouge1=(0.5, 0.25),
            rouge_l=(0.5, 0.25), parsed=(1, 1), seconds=0.0, tokens=5, **empty,
        )  # fmt: skip
        return reply(message, context, body)

    return app


class Unread:
    """An augmenter whose model writes what nobody can read."""

    k = 1

    def write(self, shared, k, ledger, progress):
        unread = {
            user: tuple(Candidate(pair.id, None, "no_input", None) for pair in pairs)
            for user, pairs in shared.items()
        }
        return Augmented(unread)

    def forget(self, user, records):
        raise AssertionError("nobody takes anything back")


def run(folder: Path, change: Change = lambda *_: None) -> dict[str, Any]:
    """A whole experiment with three arms, one of them federated; what it left of every user."""
    grid = InlineGrid(make_app(change), len(USERS), {})
    CdcdaPlm(
        make_arms(["direct_ft", "fedavg", "cdcda"], [0.5]),
        settings=DeviceSettings(
            task=TaskConfig(name="lamp_4", max_new_tokens=4),
            qlora=QLoraConfig(cohort=1),
            evaluation=EvaluationConfig(),
        ),
        bases=BaseModels(tuned_base=BaseModel("b", folder, 1, ())),
        augmenter=Unread(),
        filters=FiltersConfig(),
        fleet=Fleet(users=len(USERS), retries=0, stall_s=5, bound=BOUND),
        log=RunLog(folder),
        recipes=RecipeInputs(baselines=BaselinesConfig(fedavg_rounds=2)),
    ).start(grid)
    found: dict[str, Any] = {user: {} for user in USERS}
    for name in ("shares", "augmentation", "adaptations", "answers"):
        for row in jsonlines.read(folder / f"{name}.jsonl"):
            found[row["user"]].setdefault(name, []).append(row)
    failures = list(jsonlines.read(folder / "failures.jsonl"))
    return {"users": found, "failures": failures, "folder": folder}


@pytest.fixture(scope="module")
def honest(tmp_path_factory) -> dict[str, Any]:
    found = run(tmp_path_factory.mktemp("honest"))
    assert found["failures"] == []
    return found


def test_the_steps_follow_each_other_as_in_the_paper(honest):
    lines = list(jsonlines.read(honest["folder"] / "ledger.jsonl"))
    asked = [line["kind"] for line in lines if line["direction"] == DOWN]
    steps = [kind for kind, before in zip(asked, [None, *asked], strict=False) if kind != before]
    assert steps == [HELLO, M_BASE, SHARE, *[ADAPT, ANSWER] * 3]
    assert asked.count(ADAPT) == len(USERS) * (1 + 2 + 1)  # fedavg takes two rounds


def put(kind: str, record: str, **values: Any) -> Change:
    """Change fields of the replies to one kind of message."""

    def change(message_type: str, content: RecordDict) -> None:
        if message_type == kind:
            make = MetricRecord if record == NUMBERS else ConfigRecord
            content[record] = make({**content[record], **values})

    return change


def sums(*values: float) -> Change:
    """Sums in the place of the scores of each query."""

    def change(message_type: str, content: RecordDict) -> None:
        put(ANSWER, NUMBERS, rouge1=[], rouge_l=[], parsed=[], sums=list(values))(
            message_type, content
        )
        put(ANSWER, TEXTS, query_ids=[])(message_type, content)

    return change


def weights(value: float) -> Change:
    def change(message_type: str, content: RecordDict) -> None:
        if message_type == "train.adapt" and content.array_records:
            array = np.full((2, 2), value, dtype=np.float32)
            content["weights"] = ArrayRecord({"a": Array(array)})

    return change


def pairs(**columns: list[Any]) -> Change:
    def change(message_type: str, content: RecordDict) -> None:
        if message_type == "query.share":
            content["pairs.0"] = ConfigRecord({**content["pairs.0"], **columns})

    return change


def without(kind: str, record: str) -> Change:
    def change(message_type: str, content: RecordDict) -> None:
        if message_type == kind:
            del content[record]

    return change


def more_records(message_type: str, content: RecordDict) -> None:
    if message_type == "evaluate.answer":
        content["surprise"] = ConfigRecord({"x": "y"})


def announced_array(message_type: str, content: RecordDict) -> None:
    """An array whose head announces 40 GB."""
    if message_type == "train.adapt" and content.array_records:
        array = Array(np.zeros((2, 2), dtype=np.float32))
        array.data = array.data.replace(b"(2, 2), }        ", b"(99999, 99999), }", 1)
        content["weights"] = ArrayRecord({"a": array})


ADAPT, ANSWER, HELLO, SHARE = "train.adapt", "evaluate.answer", "query.hello", "query.share"
MALFORMED: dict[str, Change] = {
    "columns of bytes": pairs(input=[b"a", b"b", b"c"]),
    "columns of unequal length": pairs(response=["x"]),
    "a record twice": pairs(id=["r", "r", "s"]),
    "counts beyond the records": put(SHARE, NUMBERS, counts=[3, 10**9]),
    "negative counts": put(SHARE, NUMBERS, counts=[-1, -1]),
    "another version": put(HELLO, NUMBERS, version=99),
    "another user's id in hello": put(HELLO, TEXTS, user_id=USERS[3]),
    "another user's id later": put(ADAPT, TEXTS, user_id=USERS[3]),
    "a foreign arm": put(ANSWER, TEXTS, arm="cdcda@0.9"),
    "a foreign arm of a training": put(ADAPT, TEXTS, arm="other"),
    "a score of 1e9": put(ANSWER, NUMBERS, rouge1=[1e9, 0.5]),
    "a score that is no number": put(ANSWER, NUMBERS, rouge1=[math.nan, 0.5]),
    "a query twice": put(ANSWER, TEXTS, query_ids=["q", "q"]),
    "more queries than columns": put(ANSWER, NUMBERS, num_queries=10**6),
    "an infinite loss": put(ADAPT, NUMBERS, losses=[math.inf]),
    "scores of another kind of task": put(
        ANSWER, NUMBERS, rouge1=[], rouge_l=[], errors=[0.5, 1.0]
    ),
    "scores of two kinds of task": put(ANSWER, NUMBERS, gold=[1, 2], predicted=[1, 2]),
    "half of the scores": put(ANSWER, NUMBERS, rouge_l=[]),
    "sums of another task": sums(2.0, 0.0, 1.0, 1.0),
    "sums over other queries": sums(3.0, 0.0, 1.0, 1.0, math.nan, 0.0, 0.0),
    "sums beyond what queries allow": sums(2.0, 0.0, 1e9, 1.0, math.nan, 0.0, 0.0),
    "10**15 records": put(ADAPT, NUMBERS, records=10**15),
    "a float for a count": put(ADAPT, NUMBERS, steps=2.0),
    "a text for a list": put(ANSWER, TEXTS, query_ids="ab"),
    "no numbers at all": without(ADAPT, NUMBERS),
    "no texts at all": without(ANSWER, TEXTS),
    "a record too many": more_records,
    "weights that are no numbers": weights(math.nan),
    "an array that announces 40 GB": announced_array,
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_reply_costs_its_own_device_alone(tmp_path, honest, name):
    found = run(tmp_path, MALFORMED[name])
    for user in USERS:
        if user != USERS[HOSTILE]:
            assert found["users"][user] == honest["users"][user], user
    named = {failure["user"] for failure in found["failures"]}
    assert named in ({USERS[HOSTILE]}, {f"node {FIRST_NODE + HOSTILE}"})
    for failure in found["failures"]:
        assert "surprise" not in failure["reason"]


@pytest.mark.parametrize(
    "change", [put(ADAPT, NUMBERS, records=9_999_999), weights(1e6), weights(-1e6)]
)
def test_one_user_cannot_take_over_the_average(tmp_path, honest, change):
    averages = []
    for folder in (honest["folder"], run(tmp_path, change)["folder"]):
        from safetensors.numpy import load_file

        (path,) = folder.glob("averages/fedavg/1.safetensors")
        averages.append(float(load_file(path)["a"].mean()))
    assert averages[0] == pytest.approx(1.1, abs=0.02)
    assert abs(averages[1] - averages[0]) < 0.5


def test_what_lies_within_the_caps_is_averaged_as_it_came(honest):
    from safetensors.numpy import load_file

    (path,) = honest["folder"].glob("averages/fedavg/1.safetensors")
    counts = [10 + place for place in range(20)]
    values = [np.float32(1.0 + place / 100) for place in range(20)]
    expected = sum(c * float(v) for c, v in zip(counts, values, strict=True)) / sum(counts)
    assert load_file(path)["a"].mean() == pytest.approx(expected, rel=1e-6)


def test_nobody_is_bound_to_a_node_that_is_not_registered(tmp_path):
    grid = InlineGrid(make_app(lambda *_: None), len(USERS), {})
    accounted = AccountedGrid(grid, Ledger(tmp_path / "ledger.jsonl"), 0, stall_s=5)
    few = {node: user for node, user in BOUND.items() if user != USERS[2]}
    registry = discover_clients(accounted, sorted(grid.get_node_ids()), few)
    assert set(registry.nodes) == set(USERS) - {USERS[2]}
    (failure,) = accounted.failures
    assert failure.user == f"node {FIRST_NODE + 2}"
