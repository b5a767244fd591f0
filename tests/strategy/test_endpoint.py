"""An endpoint may fail in every way: requests are repeated within limits, nothing is made up."""

from __future__ import annotations

import time
import tracemalloc
from dataclasses import asdict, replace

import pytest

from conf.compose import compose
from conf.errors import ConfigError
from conf.schema import AugmenterConfig, EndpointConfig, SamplingConfig, TaskConfig
from lamp.prompts import augmentation_prompt
from lamp.records import Pair
from lamp.tasks import task
from storage import jsonlines
from storage.proxies import VARIABLES
from strategy.augmentation import Counters, Lost, Reply, augment
from strategy.cache import Cache
from strategy.endpoint import EndpointGenerator, key_of, open_client
from strategy.filters import select_readable
from strategy.ledger import ENDPOINT, Ledger
from strategy.progress import LoggedProgress
from tests.faults.endpoint import MODEL, packed, serve, similar

KEY = "sk-test-a-secret-key"
TEXT = "Input: [x], Response: [y]."
PASSING = ["429", "429 0", "500", "503", "garbage", "empty body", "other json", "no choices"]
TEXTLESS = {
    "null text": "reply has no text: its content is null, finish reason stop",
    "list content": "reply has no text: its content is a list, finish reason stop",
    "empty text": "reply is empty",
}
SLOW = ["hang", "drip", "drip head"]


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def writer(address: str, **changes) -> EndpointGenerator:
    settings = {"timeout_s": 10.0, "attempts": 3, "backoff_s": 0.01, "concurrency": 3, **changes}
    endpoint = EndpointConfig(base_url=address, model=MODEL, **settings)
    return EndpointGenerator(AugmenterConfig(sampling=SamplingConfig()), endpoint, None)


def ask(address: str, *prompts: str, **changes):
    asked = writer(address, **changes)
    return asked.write(prompts or [TEXT], range(len(prompts) or 1), lambda _: None), asked


def test_a_good_reply_comes_with_its_tokens_and_every_setting_is_sent():
    with serve() as endpoint:
        replies, asked = ask(endpoint.address)
    assert replies == [Reply(similar(TEXT, 0), 7)]
    assert asked.counts == {"ok": 1}
    (body,) = endpoint.bodies
    settings = {"temperature": 0.7, "top_p": 1.0, "max_tokens": 128, "seed": 0, "model": MODEL}
    assert settings.items() <= body.items()
    assert not {"top_k", "repetition_penalty"} & body.keys()
    assert endpoint.keys == {f"Bearer {KEY}"}


def test_a_reply_that_the_limit_cut_says_so():
    with serve(lambda *_: "cut") as endpoint:
        replies, _ = ask(endpoint.address)
    assert replies == [Reply("Input: [a], Response: [b", 7, finished=False)]


@pytest.mark.parametrize("fault", [*PASSING, *TEXTLESS, "break", *SLOW])
def test_what_passes_is_tried_again_and_counted(fault):
    limit_s = 1.5 if fault in SLOW else 10.0
    with serve(lambda _, times: fault if times == 1 else "good") as endpoint:
        replies, asked = ask(endpoint.address, timeout_s=limit_s)
    assert replies == [Reply(similar(TEXT, 0), 7)]
    assert asked.counts["ok"] == 1
    assert asked.counts["retried"] >= 1  # a busy machine may be late once more


def test_a_small_reply_that_unpacks_to_a_large_one_is_not_unpacked():
    assert len(packed()) < 1 << 17
    with serve(lambda *_: "packed") as endpoint:
        tracemalloc.start()
        (lost,), _ = ask(endpoint.address, attempts=1)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert isinstance(lost, Lost)
    assert peak < 16 << 20


@pytest.mark.parametrize("fault", [*PASSING, "break", "huge", "hang"])
def test_what_does_not_pass_ends_with_its_reason_after_so_many_attempts(fault):
    with serve(lambda *_: fault) as endpoint:
        (lost,), asked = ask(endpoint.address, timeout_s=0.5 if fault == "hang" else 10.0)
    assert isinstance(lost, Lost)
    assert asked.counts == {"retried": 2, f"lost: {lost.reason}": 1}


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("401", "key refused"),
        ("403", "key refused"),
        ("404", "no such model or address"),
        ("other model", "answered by another model"),
        ("402", "quota spent"),
        ("quota", "quota spent"),
    ],
)
def test_what_cannot_pass_ends_all_writing_at_once(fault, reason):
    with serve(lambda *_: fault) as endpoint:
        replies, _ = ask(endpoint.address, *(f"{n} {TEXT}" for n in range(20)), concurrency=2)
    assert {reply.reason for reply in replies} == {reason}
    assert sum(endpoint.asked.values()) <= 2


def test_a_request_that_is_refused_by_itself_costs_the_others_nothing():
    with serve(lambda text, _: "400" if text.startswith("bad") else "good") as endpoint:
        replies, _ = ask(endpoint.address, f"bad {TEXT}", TEXT)
    assert replies == [Lost("status 400", "no"), Reply(similar(TEXT, 1), 7)]
    assert endpoint.asked[f"bad {TEXT}"] == 1


def test_the_endpoints_own_wait_is_kept_and_too_long_a_one_is_not_waited_for():
    with serve(lambda _, times: "429 1" if times == 1 else "good") as endpoint:
        started = time.monotonic()
        replies, _ = ask(endpoint.address)
        assert time.monotonic() - started >= 1
    assert isinstance(replies[0], Reply)
    with serve(lambda *_: "429 3600") as endpoint:
        (lost,), _ = ask(endpoint.address)
    assert lost == Lost("status 429, asks to wait too long")
    assert endpoint.asked[TEXT] == 1


def test_repeated_requests_have_a_budget_for_the_whole_run():
    with serve(lambda *_: "500") as endpoint:
        prompts = [f"{n} {TEXT}" for n in range(10)]
        replies, asked = ask(endpoint.address, *prompts, attempts=9, retry_budget=4)
    assert all(isinstance(reply, Lost) for reply in replies)
    assert sum(endpoint.asked.values()) == 10 + 4
    assert asked.counts["retried"] == 4


def test_no_more_requests_are_under_way_than_allowed():
    with serve() as endpoint:
        replies, _ = ask(endpoint.address, *(f"{n} {TEXT}" for n in range(30)), concurrency=3)
    assert endpoint.most <= 3
    assert [reply.text for reply in replies] == [similar(f"{n} {TEXT}", n) for n in range(30)]


def test_an_endpoint_that_is_not_there_is_lost_not_a_crash():
    with serve() as endpoint:
        pass
    (lost,), _ = ask(endpoint.address)
    assert lost == Lost("connection broke")


def test_half_a_character_is_a_reply(tmp_path):
    with serve(lambda *_: "surrogate") as endpoint:
        candidates, counters = run(endpoint.address, tmp_path, {"ana": (Pair("1", "x", "y"),)})
    assert counters.lost == {}
    (candidate,) = candidates["ana"]
    assert candidate.pair.input == "half ? a character"


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        *TEXTLESS.items(),
        ("refusal", "refused by the model: I will not write this"),
        ("filtered", "refused by the endpoint's filter"),
    ],
)
def test_a_reply_without_a_text_is_lost_and_asked_for_again_later(fault, reason, tmp_path):
    shared = {"ana": (Pair("1", "x", "y"),)}
    with serve(lambda *_: fault) as endpoint:
        candidates, counters = run(endpoint.address, tmp_path, shared)
    assert counters.lost == {"ana": reason}
    assert endpoint.asked.total() == (1 if "refused" in reason else 3)
    assert candidates["ana"][0].pair is None
    with serve() as endpoint:
        candidates, counters = run(endpoint.address, tmp_path, shared)
    assert counters.lost == {}
    assert candidates["ana"][0].pair is not None


def test_the_endpoints_own_words_come_on_one_line_without_the_key():
    with serve(lambda *_: "key in message") as endpoint:
        (lost,), _ = ask(endpoint.address)
    assert lost.said.startswith("key (key) has no access to \\x1b[31mxxx")
    assert len(lost.said) == 200
    assert lost.told == f"status 400: {lost.said}"


def test_words_that_repeat_the_prompt_are_not_shown():
    with serve(lambda *_: "echo") as endpoint:
        (lost,), _ = ask(endpoint.address, "Input: [a secret of the user], Response: [y].")
    assert "secret" not in lost.said
    assert "repeat the prompt" in lost.said


def test_length_field_and_seed_are_sent_as_configured():
    with serve() as endpoint:
        ask(endpoint.address, length_field="max_completion_tokens", send_seed=False)
    (body,) = endpoint.bodies
    assert body["max_completion_tokens"] == 128
    assert not {"max_tokens", "seed"} & body.keys()


@pytest.mark.parametrize("names", [("another-model",), ("x", "*")])
def test_other_served_names_are_taken_where_configured(names):
    with serve(lambda *_: "other model") as endpoint:
        (reply,), _ = ask(endpoint.address, served_names=names)
    assert reply == Reply("x", 7)


def test_a_proxy_of_the_environment_is_asked(monkeypatch):
    with serve() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.address.removesuffix("/v1"))
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        (reply,), _ = ask("http://endpoint.invalid/v1")
        assert isinstance(reply, Reply)
        assert proxy.asked[TEXT] == 1
        monkeypatch.setenv("NO_PROXY", "endpoint.invalid")
        (lost,), _ = ask("http://endpoint.invalid/v1", attempts=1)
        assert lost == Lost("connection broke")
        monkeypatch.setenv("NO_PROXY", "[::1],127.0.0.1")
        with serve() as endpoint:
            assert isinstance(ask(endpoint.address)[0][0], Reply)
    assert proxy.asked[TEXT] == 1


@pytest.mark.parametrize(
    ("proxy", "message"),
    [
        ("socks5://user:pw@127.0.0.1:1", "ALL_PROXY: expected an http or https proxy, got a SOCKS"),
        ("http://[::1", "ALL_PROXY: expected addresses such as http://host:port"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_refused_before_the_run(monkeypatch, proxy, message):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(ConfigError, match=message) as error:
        open_client(EndpointConfig(base_url="http://x/v1", model="m"))
    assert "pw" not in str(error.value)


def run(address: str, folder, shared, on_ask=None, **changes):
    class NliScorer:
        identity = "judge"

        def cut(self, pairs):
            return sum(len(first) > 50 for first, _ in pairs)

        def both_ways(self, pairs):
            return [(0.9, 0.9)] * len(pairs)

    counters = Counters()
    candidates = augment(
        shared,
        task=task(TaskConfig(name="lamp_4", max_new_tokens=8)),
        config=AugmenterConfig(k=1),
        seed=0,
        writer=writer(address, **changes),
        judge=NliScorer(),
        cache=Cache(folder / "cache.sqlite"),
        progress=LoggedProgress(),
        counters=counters,
        on_ask=on_ask,
    )
    return candidates, counters


def test_a_user_without_a_reply_goes_on_without_augmentation_and_is_asked_again_later(tmp_path):
    shared = {
        "ana": (Pair("1", "an unlucky text", "y"), Pair("2", "a text", "y")),
        "ben": (Pair("3", "another text", "y"),),
    }
    with serve(lambda text, _: "500" if "unlucky" in text else "good") as endpoint:
        candidates, counters = run(endpoint.address, tmp_path, shared)
    assert counters.lost == {"ana": "status 500: no"}
    assert select_readable(candidates["ana"]).rejected == {"no_reply": 2}
    assert len(select_readable(candidates["ben"]).kept) == 1
    with serve() as endpoint:
        candidates, counters = run(endpoint.address, tmp_path, shared)
        assert counters.lost == {}
    assert counters.generated_replies == 1  # the others came from the cache
    assert len(select_readable(candidates["ana"]).kept) == 2


def test_the_ledger_has_what_an_endpoint_is_shown_before_it_is_shown(tmp_path):
    pair, own = Pair("1", "both have it", "y"), Pair("2", "hers alone", "y")
    ledger, seen = Ledger(tmp_path / "ledger.jsonl"), []

    def behave(text, _):
        seen.append(len(list(jsonlines.read(tmp_path / "ledger.jsonl"))))
        return "good"

    shared = {"ana": (pair, own), "ben": (replace(pair, id="9"),)}
    with serve(behave) as endpoint:
        run(endpoint.address, tmp_path, shared, lambda _, prompts: ledger.endpoint(prompts))
        run(endpoint.address, tmp_path, shared, lambda _, prompts: ledger.endpoint(prompts))
    assert set(seen) == {2}
    lines = list(jsonlines.read(tmp_path / "ledger.jsonl"))  # the second run asks for nothing
    assert [(line["user"], line["records"]) for line in lines] == [("ana", 2), ("ben", 1)]
    assert {(line["direction"], line["kind"]) for line in lines} == {(ENDPOINT, "augment")}
    assert lines[1]["bytes"] == len(augmentation_prompt(pair).encode())


def test_without_a_key_the_run_is_refused_before_it_begins(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    endpoint = compose(["augmenter=openai"]).augmenter.endpoint
    with pytest.raises(ConfigError, match=r"no key|there is none; export OPENAI_API_KEY"):
        key_of(endpoint)
    assert key_of(EndpointConfig(base_url="http://x/v1", key_variable=None)) == "none"


@pytest.mark.parametrize(
    "address", ["http://user:pw@x/v1", "http://x/v1?key=s", "ftp://x", "nonsense"]
)
def test_an_address_that_could_hold_a_secret_is_refused(address):
    with pytest.raises(ConfigError, match=r"augmenter\.endpoint\.base_url"):
        compose(["augmenter=openai", f"augmenter.endpoint.base_url='{address}'"])


def test_the_key_stands_in_no_part_of_the_configuration():
    config = compose(["augmenter=openai"])
    assert KEY not in str(asdict(config))
    asked = writer("http://127.0.0.1:9/v1")
    assert KEY not in str(vars(asked))
    assert KEY not in asked.identity


def test_requests_that_failed_together_do_not_come_again_together():
    asked = writer("http://127.0.0.1:9/v1", backoff_s=1.0)
    waits = [asked._backoff(seed, 0) for seed in range(20)]
    assert len(set(waits)) == 20
    assert all(0.5 <= wait <= 1 for wait in waits)
    assert asked._backoff(3, 2) == asked._backoff(3, 2) >= 2
