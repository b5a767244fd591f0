"""Well-formed but hostile messages to the unmodified ClientApp of a user who shares nothing.

Every attack is a number of real messages. Under coarse numbers and under none it recovers no
record, no query and no gold answer. The device's bounds and budget are off, so that the numbers
alone have to hold; further below they are on. Under exact numbers the first attack spells every
record.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ConfigRecord
from hypothesis import given
from hypothesis import strategies as st

from clients import folder, outbound, sent
from clients.download import bases_folder
from clients.policy import Bounds, Budget, Policy
from conf.schema import StreamConfig
from lamp.records import Pair, UserHistory
from lamp.serialise import history_to_json
from models.chat import turn_parts
from models.loading import load_tokenizer
from protocol.codec import TEXTS, WireMessage, decode, encode
from protocol.errors import ERROR_CLASSES
from protocol.messages import (
    AdaptReply,
    AnswerReply,
    AnswerRequest,
    BaseRequest,
    CollectRequest,
    QueueRequest,
    ShareReply,
    ShareRequest,
)
from protocol.recipe import Recipe, Stream, recipe_to_json
from protocol.settings import settings_to_json
from storage import jsonlines
from tests.plugins.hostile import (
    BASE,
    PAIRS,
    SECRETS,
    Server,
    adapt_request,
    device_settings,
    install,
    make_device,
    spelled,
    unigram_costs,
    write_unigram,
)

LONGEST = 9  # tokens; the texts have fewer
PROBE = ("qlora.batch_size=1", "qlora.learning_rate=1e-30", "qlora.warmup=0")


@pytest.fixture(scope="module")
def unigram(tmp_path_factory) -> Path:
    return write_unigram(tmp_path_factory.mktemp("unigram"))


@pytest.fixture
def device(tmp_path, unigram) -> Callable[..., Path]:
    def make(**given) -> Path:
        own = make_device(tmp_path / "devices", **given)
        install(own, unigram)
        return own

    return make


def chat_tokens(server: Server) -> int:
    """Tokens of the chat template, which every training example has."""
    parts = turn_parts(load_tokenizer(bases_folder(server.own) / BASE), None)
    return len(parts.before) + len(parts.after)


def adapted(server: Server, settings, **changes) -> AdaptReply | None:
    content = server.ask(adapt_request(settings, **changes))
    return None if content is None else decode(AdaptReply, content)


def answered(server: Server, settings, **changes) -> AnswerReply | None:
    request = AnswerRequest(
        arm="device", base_id=BASE, settings=settings_to_json(settings), adapted=False
    )
    content = server.ask(replace(request, **changes))
    return None if content is None else decode(AnswerReply, content)


def growing_sequences(server: Server, *words: str, queued: bool = False) -> int:
    """One token more of every record with each message: the losses spell the texts."""
    tokenizer = load_tokenizer(bases_folder(server.own) / BASE)
    settings, rows = device_settings(*PROBE, *words), []
    for tokens in range(1, LONGEST):
        longest = replace(settings.qlora, max_seq_len=chat_tokens(server) + tokens)
        asked = replace(settings, qlora=longest)
        reply = collected(server, asked) if queued else adapted(server, asked)
        if reply is None or len(reply.losses) != len(PAIRS):
            return 0
        rows.append(reply.losses)
    found = spelled(rows, unigram_costs(len(tokenizer) + 12))
    texts = {tokenizer.decode(ids, skip_special_tokens=True) for ids in found}
    return sum(any(text.startswith(secret) for text in texts) for secret in SECRETS)


def collected(server: Server, settings) -> AdaptReply | None:
    request = adapt_request(settings)
    fields = {name: getattr(request, name) for name in request.__dataclass_fields__}
    fields.pop("TYPE")
    server.ask(QueueRequest(**fields))
    asked = CollectRequest(arm=request.arm, base_id=BASE, settings=request.settings)
    content = server.ask(asked)
    return None if content is None else decode(AdaptReply, content)


def other_task(server: Server) -> int:
    """LaMP-7 makes the input the completion; under LaMP-2 an error quoted a gold answer."""
    for task in ("lamp_7", "lamp_2", "lamp_3", "lamp_5"):
        adapted(server, device_settings(*PROBE, f"task={task}"))
        answered(server, device_settings(f"task={task}"))
    return growing_sequences(server, "task=lamp_7")


def not_a_number(server: Server) -> int:
    """A model that breaks on one token tells with every message whether some record holds it."""
    import torch
    from safetensors.torch import load_file, save_file

    weights = bases_folder(server.own) / BASE / "model.safetensors"
    state = load_file(weights)
    known = set()
    for token in range(70, 76):
        broken = {name: tensor.clone() for name, tensor in state.items()}
        broken["model.embed_tokens.weight"][token] = torch.nan
        save_file(broken, weights, metadata={"format": "pt"})
        from clients import base

        base.load.cache_clear()
        if adapted(server, device_settings(*PROBE)) is None:
            known.add(token)
    return 0 if len(known) <= 6 else len(known)  # of the order of the tokens nothing is known


def a_path_of_the_servers(server: Server) -> int:
    """BERTScore from a path or a hub name; a base that is no folder of the device."""
    for path in ("/etc", "../../secret.bin", "attacker/model"):
        answered(server, device_settings(f"evaluation.bertscore={path}"))
        answered(server, device_settings(), base_id=path)
        adapted(server, device_settings(*PROBE), arm=path)
    answered(server, device_settings(), base_id="nothing")
    return 0


def case_studies(server: Server) -> int:
    """Texts of predictions and gold answers."""
    reply = answered(server, device_settings("evaluation.ship_predictions=true"))
    return len(reply.gold_texts) if reply else 0


def adapter_weights(server: Server) -> int:
    """The adapter, which knows the records."""
    reply = adapted(server, device_settings(), recipe=recipe_to_json(Recipe(federated=True)))
    return len(reply.weights) if reply else 0


def learning_curve(server: Server) -> int:
    """A stream of one record at a time: its curve, bytes and counts tell each record's."""
    for every in (1, 2):
        stream = Stream(settings=StreamConfig(bins=3, every=every, sets=0, lexicons="x"))
        recipe = recipe_to_json(Recipe(stream=stream))
        reply = adapted(server, device_settings(*PROBE), recipe=recipe)
        if reply and (reply.curve or reply.buffer_bytes or reply.annotations):
            return len(reply.curve)
    return 0


def every_query(server: Server) -> int:
    """Scores of every query."""
    reply = answered(server, device_settings("evaluation.disclose=queries"))
    return len(reply.query_ids) if reply else 0


def own_teacher(server: Server) -> int:
    """Logits of a teacher that favours one token, for records that were not shared."""
    for token in (70, 71, 72):
        logits = np.zeros((2, 412), dtype=np.float16)
        logits[:, token] = 50
        recipe = recipe_to_json(Recipe(distillation=100.0))
        settings = device_settings(*PROBE)
        reply = adapted(server, settings, recipe=recipe, logits={PAIRS[0].id: logits})
        if reply and len(reply.losses) > 1:
            return len(reply.losses)
    return 0


def what_would_be_shared(server: Server) -> int:
    """Copies of what the user would share, counted; ratios that nobody grants."""
    found = 0
    for ratio in (0.1, 1.0):
        recipe = recipe_to_json(Recipe(local="copies", ratio=ratio, k=3))
        reply = adapted(server, device_settings(*PROBE), recipe=recipe)
        found += reply.synthetic if reply else 0
    for ratios in ((2.0,), (1.0, 1e308), (float("inf"),), (float("nan"), -1.0), (0.5,) * 50):
        content = server.ask(ShareRequest(ratios=ratios))
        found += len(decode(ShareReply, content).pairs) if content else 0
    return found


def older_fields(server: Server) -> int:
    """Lexicons and a base of the server's, by which an earlier version chose what leaves first."""
    body = ShareRequest(ratios=(1.0,))
    content = encode(body)
    texts = dict(content.config_records[TEXTS])
    content[TEXTS] = ConfigRecord({**texts, "base_id": BASE, "recipe": "{}"})
    reply = server.ask(body, content)
    return len(decode(ShareReply, reply).pairs) if reply else 0


def another_base(server: Server) -> int:
    """A base model that nobody vouched for, and parts that become paths or more than they are."""
    part = {"bytes": np.zeros(100, dtype=np.uint8)}
    for base_id, digest in (("../x", "00"), ("evil", "../../y"), ("evil", "0" * 64)):
        body = BaseRequest(base_id=base_id, digest=digest, part=0, parts=1, m_base=part)
        if server.ask(body) is not None:
            return 1
    return int((bases_folder(server.own) / "evil").exists())


def its_own_clock(server: Server) -> int:
    """Time limits that are none."""
    found = 0
    for limit in (-1.0, 0.0, math.inf, math.nan, 1e300, "x", True):
        patient = Server(server.own, **{"client-limit-s": limit})
        reply = answered(patient, device_settings())
        server.messages += patient.messages
        server.reasons += patient.reasons
        found += reply is not None
    return found


ATTACKS: dict[str, Callable[[Server], int]] = {
    "losses of growing sequences": growing_sequences,
    "the same, queued and collected": lambda server: growing_sequences(server, queued=True),
    "another task": other_task,
    "a model that breaks on one token": not_a_number,
    "paths of the server's": a_path_of_the_servers,
    "case studies": case_studies,
    "adapter weights": adapter_weights,
    "learning curve of a stream": learning_curve,
    "scores of every query": every_query,
    "a teacher of the server's": own_teacher,
    "what would be shared": what_would_be_shared,
    "fields of an earlier version": older_fields,
    "another base model": another_base,
    "time limits": its_own_clock,
}


@pytest.mark.parametrize("numbers", ["coarse", "none"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_no_attack_recovers_a_record(device, attack, numbers, record_property):
    server = Server(device(numbers=numbers))
    recovered = ATTACKS[attack](server)
    record_property("messages", server.messages)
    assert (recovered, server.leaked()) == (0, 0)
    assert server.messages >= 1
    assert set(server.reasons) <= set(ERROR_CLASSES)


@pytest.mark.parametrize("queued", [False, True])
def test_under_exact_numbers_the_losses_spell_every_record(device, queued):
    server = Server(device(numbers="exact"))
    assert growing_sequences(server, queued=queued) == len(SECRETS)


def test_exact_numbers_change_neither_the_devices_task_nor_what_is_permitted(device):
    server = Server(device(numbers="exact"))
    for attack in (other_task, case_studies, adapter_weights, another_base, its_own_clock):
        assert attack(server) == 0
    assert server.leaked() == 0


def test_nothing_is_opened_that_a_server_names(device, monkeypatch):
    opened = []
    monkeypatch.setattr("lamp.bertscore.load_bertscore", lambda path: opened.append(path))
    server = Server(device(numbers="exact"))
    a_path_of_the_servers(server)
    assert opened == []


@pytest.mark.parametrize(
    "word",
    ["max_seq_len=40", "batch_size=1", "learning_rate=1e-30", "epochs=10000", "rank=999"],
)
def test_hyperparameters_outside_the_devices_bounds_are_refused(device, word):
    server = Server(device(numbers="exact", bounds=Bounds()))
    assert adapted(server, device_settings(f"qlora.{word}")) is None
    assert server.reasons == ["ProtocolError"]
    (kept,) = jsonlines.read(server.own / "errors.jsonl")
    assert word.partition("=")[0] in kept["text"]


def test_a_spent_budget_ends_all_answers_and_every_refusal_is_alike(device):
    cost = outbound.bits_of("train.adapt", Policy(0.0))
    own = device(budget=Budget(bits=3 * cost + 0.1, bits_per_day=None, messages=50))
    server = Server(own)
    replies = [adapted(server, device_settings(*PROBE)) for _ in range(5)]
    assert [reply is not None for reply in replies] == [True] * 3 + [False] * 2
    assert server.reasons == ["BudgetError"] * 2
    assert sent.spent(own).in_all.bits <= 3 * cost + 0.1


def test_the_budget_of_a_day_is_there_again_on_the_next(tmp_path, monkeypatch):
    own = make_device(tmp_path)
    budget = Budget(messages_per_day=2, messages=3, bits=None, bits_per_day=None)
    for day, outcomes in (("2030-01-01", [1, 1, 0]), ("2030-01-02", [1, 0])):
        monkeypatch.setattr(sent, "_today", lambda day=day: day)
        for expected in outcomes:
            if expected:
                sent.charge(own, budget, "query.hello", 1.0)
            else:
                with pytest.raises(Exception, match="is spent"):
                    sent.charge(own, budget, "query.hello", 1.0)


def test_what_is_spent_stays_spent_when_the_process_dies_at_work(tmp_path):
    own = make_device(tmp_path)
    outbound.charge(folder.read(own), "train.adapt")  # and then no reply
    assert sent.spent(own).in_all.messages == 1


# The bound: log2 of the distinct replies that a message can have.

FINITE = st.floats(0, 1e6)


@pytest.mark.parametrize("numbers", ["coarse", "none"])
@pytest.mark.parametrize("kind", ["train.adapt", "evaluate.answer"])
def test_a_message_has_no_more_replies_than_its_bits_say(kind, numbers):
    """More candidates than the bound distinguishes: random replies over the whole range."""
    given = Policy(0.0, numbers=numbers, task=device_settings().task)
    most = 2 ** outbound.bits_of(kind, given) - len(ERROR_CLASSES)
    generator = np.random.default_rng(0)
    candidates = [_random_reply(kind, generator) for _ in range(4 * round(most) + 100)]
    shown = {repr(outbound.thinned(each, given)) for each in candidates}
    assert len(set(map(repr, candidates))) > most
    assert len(shown) <= round(most)
    if numbers == "coarse":
        assert len(shown) > most / 8  # the bound is no empty promise


def _random_reply(kind: str, generator: np.random.Generator) -> WireMessage:
    number = int(10 ** generator.uniform(0, 4.5))
    if kind == "train.adapt":
        losses = tuple(10 ** generator.uniform(-3, 3, size=3))
        return AdaptReply(
            user_id="u", arm="a", steps=number, records=number, synthetic=number, losses=losses,
            tokens=number, seconds=float(number), peak_memory_bytes=number, adapter_bytes=number,
        )  # fmt: skip
    score = float(generator.uniform(0, 1))
    empty = dict.fromkeys(
        ("query_ids", "gold", "predicted", "errors", "rouge1", "rouge_l", "bertscore", "parsed",
         "texts", "gold_texts"), (),
    )  # fmt: skip
    unicode = float(generator.integers(number + 1))  # answers that LaMP's ROUGE does not see
    sums = (float(number), 0.0, *[score * number] * 2, math.nan, score * unicode, unicode)
    return AnswerReply(
        user_id="u", arm="a", num_queries=number, seconds=1.0, tokens=number, sums=sums, **empty
    )


def test_more_histories_than_the_bound_distinguishes_give_no_more_replies(device):
    server = Server(device(numbers="none"))
    most = 2 ** outbound.bits_of("train.adapt", folder.read(server.own).policy)
    replies = set()
    for number in range(2 * round(most)):
        pairs = tuple(Pair(f"p{n}", "x", f"{number} {n}" * n) for n in range(number))
        history = history_to_json(UserHistory("ana", (), pairs, ()))
        (server.own / "history.json").write_text(json.dumps(history))
        replies.add(repr(adapted(server, device_settings(*PROBE))))
    assert len(replies) <= most < server.messages


@given(loss=st.floats(allow_nan=True, allow_infinity=True), records=st.integers(0, 10**6))
def test_a_coarse_loss_has_two_digits_between_its_bounds(loss, records):
    reply = replace(_random_reply("train.adapt", np.random.default_rng(0)), losses=(loss,))
    shown = outbound.thinned(replace(reply, records=records), Policy(0.0))
    assert shown.records in (0, 10, 100, 1_000, 10_000)
    assert shown.records <= records
    assert bool(shown.losses) == (records >= 10)
    for value in shown.losses:
        assert 0.1 <= value <= 9.9
        assert value == float(f"{value:.2g}")


def test_two_first_requests_at_once_get_one_share(tmp_path):
    own = folder.create(
        tmp_path,
        folder.read(make_device(tmp_path / "x")).history,
        Policy(0.5, select="sensitive"),
        b"k" * 32,
    )
    shares: list[set[str]] = []

    def ask() -> None:
        from clients import share_order

        device = share_order.fixed(folder.read(own))
        shares.append({pair.id for pair in outbound.grant(device, [1.0]).pairs})

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(shares) == 4
    assert len(set().union(*shares)) == 5
