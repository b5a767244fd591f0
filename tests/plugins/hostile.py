"""A server that sends what it likes to one real device, through Flower's own ClientApp."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml
from flwr.app import Context, Message, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.supercore.task_identity import TaskIdentity

from clients import folder
from clients.app import IDLE_KEY, app
from clients.download import bases_folder
from clients.policy import NO_BUDGET, UNBOUNDED, Policy
from clients.watchdog import LIMIT_KEY
from conf.compose import compose
from lamp.records import Pair, Query, UserHistory
from protocol.codec import WireMessage, encode
from protocol.messages import AdaptRequest
from protocol.settings import DeviceSettings, settings_from_json, settings_of, settings_to_json
from protocol.wire import serialise
from storage import atomic
from tests.plugins.qwen2 import build_model, build_tokenizer

BASE = "base0"
ANSWER = "Generate a headline for the following article: "
SECRETS = tuple(f"{word} {number}" for number, word in enumerate(
    ("plum", "fig", "kiwi", "lime", "pear", "date", "nut", "corn", "bean", "leek")
))  # fmt: skip
PAIRS = tuple(Pair(f"p{n}", f"note {n} of {text}", text) for n, text in enumerate(SECRETS))
QUERIES = tuple(Query(f"q{n}", f"{ANSWER}article {n}", f"gold {n}") for n in range(10))
STEP = 0.05  # nats between the costs of two tokens


def device_settings(*words: str) -> DeviceSettings:
    """Those of :func:`_composed` with other values, as ``qlora.rank=8`` or ``task=lamp_7``."""
    given = json.loads(settings_to_json(_composed()))
    for word in words:
        path, _, value = word.partition("=")
        *parents, name = ("task", "name") if path == "task" else path.split(".")
        inner = given
        for parent in parents:
            inner = inner[parent]
        inner[name] = yaml.safe_load(value) if "e-" not in value else float(value)
    return settings_from_json(json.dumps(given))


@cache
def _composed() -> DeviceSettings:
    """LaMP-4, float32, one epoch; composing takes a second."""
    given = ["task=lamp_4", "task.max_new_tokens=2", "qlora.compute_dtype=float32"]
    return settings_of(compose([*given, "qlora.epochs=1", "qlora.cohort=1"]))


def make_device(root: Path, **policy: Any) -> Path:
    """A real device whose user shares nothing, with all that a simulation's user allows besides."""
    given = {"task": device_settings().task, "bounds": UNBOUNDED, "budget": NO_BUDGET, **policy}
    return folder.create(
        root, UserHistory("ana", (), PAIRS, QUERIES), Policy(0.0, **given), b"k" * 32
    )


def install(own: Path, base: Path) -> None:
    """Put a base model where the device keeps those that it took."""
    with atomic.new_folder(bases_folder(own) / BASE, {"sha256": "00"}) as made:
        shutil.copytree(base, made, dirs_exist_ok=True)


def write_unigram(target: Path) -> Path:
    """A base model whose output never depends on its input: token i costs about STEP * i nats."""
    tokenizer = build_tokenizer()
    model = build_model(tokenizer)
    config = model.config
    config.tie_word_embeddings = False
    model = type(model)(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
        model.model.embed_tokens.weight.fill_(1.0)
        model.model.norm.weight.fill_(1.0)  # of a constant state: every number of it is 1
        costs = STEP * torch.arange(config.vocab_size, dtype=torch.float32)
        model.lm_head.weight[:, 0] = -costs
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    return target


def unigram_costs(size: int) -> list[float]:
    """What each token costs under :func:`write_unigram`, in nats."""
    logits = -STEP * torch.arange(size, dtype=torch.float64)
    return (-torch.log_softmax(logits, dim=0)).tolist()


class Server:
    """Asks one device for what it likes and keeps every byte that comes back."""

    def __init__(self, own: Path, **run_config: Any) -> None:
        self.own, self.messages, self.wire = own, 0, b""
        self.reasons: list[str] = []
        self._run_config = {LIMIT_KEY: 60.0, **run_config}

    def ask(self, body: WireMessage, content: RecordDict | None = None) -> RecordDict | None:
        """Send a message as if to a fresh process; None where the device refuses."""
        self.messages += 1
        context = Context(
            run_id=self.messages,
            node_id=1,
            node_config={"device-folder": str(self.own), IDLE_KEY: 0},
            state=RecordDict(),
            run_config=self._run_config,
        )
        TaskIdentity.task_id = TaskIdentity.run_id = self.messages
        TaskIdentity.node_id = SUPERLINK_NODE_ID
        message = Message(content or encode(body), dst_node_id=1, message_type=body.TYPE)
        message.metadata.__dict__["_message_id"] = "1"
        reply = app(message=message, context=context)
        if reply.has_error():
            self.reasons.append(reply.error.reason)
            self.wire += reply.error.reason.encode()
            return None
        self.wire += serialise(reply.content)
        return reply.content

    def leaked(self) -> int:
        """Records, queries and gold answers whose words stand in what came back."""
        texts = [*SECRETS, *(query.gold for query in QUERIES)]
        return sum(text.encode() in self.wire for text in texts)


def adapt_request(settings: DeviceSettings, **changes: Any) -> AdaptRequest:
    """A request to train on D_u alone."""
    request = AdaptRequest(
        arm="direct_ft", base_id=BASE, settings=settings_to_json(settings), seed=0, kept=(),
        extra_records=0,
    )  # fmt: skip
    return replace(request, **changes)


def spelled(losses: Sequence[Sequence[float]], costs: Sequence[float]) -> list[list[int]]:
    """Token ids of each record from its mean losses over 1, 2, 3 ... tokens.

    Args:
        losses: Per number of tokens, each record's mean loss.
        costs: What each token costs.
    """
    found: list[list[int]] = [[] for _ in losses[0]]
    for place, tokens in enumerate(found):
        summed = 0.0
        for number, row in enumerate(losses, start=1):
            cost = row[place] * number - summed
            nearest = min(range(len(costs)), key=lambda token: abs(costs[token] - cost))
            if not math.isclose(costs[nearest], cost, abs_tol=STEP / 3):
                break
            tokens.append(nearest)
            summed += costs[nearest]
    return found
