"""Before the first step: real devices get M_base once, and withdrawn records are forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from conf.schema import EvaluationConfig, FiltersConfig, QLoraConfig, TaskConfig
from protocol.codec import decode, encode
from protocol.messages import (
    PROTOCOL_VERSION,
    AnswerReply,
    AnswerRequest,
    BaseReply,
    BaseRequest,
    HelloReply,
    WithdrawReply,
)
from protocol.settings import DeviceSettings
from sim.run.inline import InlineGrid
from storage import bundle, jsonlines
from strategy import CdcdaPlm
from strategy.arms import make_arms
from strategy.base_model import BaseModel, BaseModels
from strategy.ledger import M_BASE, WITHDRAWAL
from strategy.registry import Fleet
from strategy.run_log import RunLog

USERS = ("ana", "ben", "eve")  # virtual; real; real, with M_base from an earlier run
RECORDS = ("hash-1", "hash-2")


class Forgetful:
    """An augmenter that is asked for nothing but to forget."""

    k = 1

    def __init__(self):
        self.forgotten = []

    def forget(self, user, records):
        self.forgotten.append((user, records))


@pytest.fixture
def base(tmp_path) -> BaseModel:
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    return BaseModel("the-base", folder, 7, ())


@pytest.fixture
def run(tmp_path, base):
    """One run of arm ``device`` over three devices; what each was sent of M_base."""
    digest = bundle.pack(base.folder, tmp_path / "base.tar")
    sent: dict[str, list[BaseRequest]] = {user: [] for user in USERS}
    augmenter = Forgetful()
    CdcdaPlm(
        make_arms(["device"], None),
        settings=DeviceSettings(
            task=TaskConfig(name="lamp_4", max_new_tokens=4),
            qlora=QLoraConfig(),
            evaluation=EvaluationConfig(),
        ),
        bases=BaseModels(tuned_base=base),
        augmenter=augmenter,
        filters=FiltersConfig(),
        fleet=Fleet(users=len(USERS), retries=0, stall_s=5),
        log=RunLog(tmp_path / "run"),
    ).start(InlineGrid(make_app(sent, digest), len(USERS), {}))
    return tmp_path / "run", sent, augmenter


def make_app(sent: dict[str, list[BaseRequest]], digest: str) -> ClientApp:
    app = ClientApp()

    def user(context: Context) -> str:
        return USERS[int(context.node_config["partition-id"])]

    @app.query("hello")
    def hello(message: Message, context: Context) -> Message:
        held = (digest,) if user(context) == "eve" else ()
        body = HelloReply(
            user_id=user(context),
            version=PROTOCOL_VERSION,
            downloads=user(context) != "ana",
            held=held,
        )
        return Message(encode(body), reply_to=message)

    @app.query("base")
    def take(message: Message, context: Context) -> Message:
        sent[user(context)].append(decode(BaseRequest, message.content))
        return Message(encode(BaseReply(user_id=user(context), complete=True)), reply_to=message)

    @app.query("withdraw")
    def withdraw(message: Message, context: Context) -> Message:
        records = RECORDS if user(context) == "ben" else ()
        body = WithdrawReply(user_id=user(context), records=records)
        return Message(encode(body), reply_to=message)

    @app.evaluate("answer")
    def answer(message: Message, context: Context) -> Message:
        asked = decode(AnswerRequest, message.content)
        columns = ("gold", "predicted", "errors", "bertscore", "sums", "texts", "gold_texts")
        body = AnswerReply(
            user_id=user(context),
            arm=asked.arm,
            num_queries=1,
            query_ids=(f"{user(context)}-q",),
            rouge1=(0.5,),
            rouge_l=(0.5,),
            parsed=(1,),
            seconds=0.0,
            tokens=1,
            **dict.fromkeys(columns, ()),
        )
        return Message(encode(body), reply_to=message)

    return app


def rows(folder: Path, name: str) -> list[dict]:
    return list(jsonlines.read(folder / f"{name}.jsonl"))


def test_m_base_is_sent_to_who_downloads_and_does_not_hold_it(run):
    folder, sent, _ = run
    assert [len(sent[user]) for user in USERS] == [0, 1, 0]
    (part,) = sent["ben"]
    assert (part.base_id, part.part, part.parts, part.signature) == ("the-base", 0, 1, "")
    assert list(part.m_base) == ["bytes"]
    noted = [line["user"] for line in rows(folder, "ledger") if line["kind"] == M_BASE]
    assert noted == ["ana"]  # the others' downloads are messages, and stand there as such
    assert {row["user"] for row in rows(folder, "answers")} == set(USERS)
    assert rows(folder, "failures") == []


def test_what_a_user_took_back_is_forgotten_and_the_ledger_knows(run):
    folder, _, augmenter = run
    assert augmenter.forgotten == [("ben", RECORDS)]
    (tombstone,) = [line for line in rows(folder, "ledger") if line["kind"] == WITHDRAWAL]
    assert (tombstone["user"], tombstone["records"]) == ("ben", 2)
