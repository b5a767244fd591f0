"""The whole chain in one process: real devices, real adapters, and every message held to the table.

The cloud's two models are replaced by small stand-ins at their seams, so that pairs are kept
although the networks are random; everything else is what a run uses.
"""

from __future__ import annotations

import gc
import json
import shutil
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from clients import folder
from conf.compose import compose
from conf.errors import ConfigError
from lamp.records import Pair, Query, UserHistory
from models import loading
from protocol.codec import decode
from protocol.messages import DEVICE_TO_SERVER, SERVER_TO_DEVICE
from protocol.wire import ALWAYS, WIRE_TABLE, contents, serialise
from sim.folders import RunFolder
from sim.run.engine import client_run_config
from sim.run.inline import InlineGrid
from sim.run.prepare import scorer
from sim.run.provision import fix_orders, policy_of
from sim.run.server import ServerInputs, run_experiment
from storage import jsonlines
from strategy import public
from strategy.cloud_models import Cloud
from strategy.progress import LoggedProgress
from tests.plugins.stand_ins import Generator, NliScorer

# One process for all of them: each would simulate the whole run anew.
pytestmark = pytest.mark.xdist_group("wire")

USERS = ("ana", "ben", "eve")
RATIOS = {"ana": 0.5, "ben": 0.0, "eve": 1.0}
METHODS = tuple(WIRE_TABLE)


def history(user: str) -> UserHistory:
    pairs = tuple(
        Pair(f"{user}-{n}", f"{user} canary{user}{n} text about {n}", f"headline {user} {n}")
        for n in range(6)
    )
    query = "Generate a headline for the following article: "
    queries = tuple(
        Query(f"{user}-q{n}", f"{query}secretquery{user}{n}", f"secretgold{user}{n}")
        for n in range(2)
    )
    return UserHistory(user, (), pairs, queries)


class ReversedGrid(InlineGrid):
    """Hands the replies over in the opposite order."""

    def pull_messages(self, message_ids):
        return super().pull_messages(message_ids)[::-1]


class RecordingGrid(InlineGrid):
    """Keeps a copy of every message body with its direction and node."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.down, self.up = [], []
        self.held_at_adaptation = None

    def push_messages(self, messages):
        messages = list(messages)
        if (
            messages
            and self.held_at_adaptation is None
            and messages[0].metadata.message_type == "train.adapt"
        ):
            self.held_at_adaptation = sum(ref() is not None for ref in self.cloud_networks)
        self.down += [(each.metadata, each.content) for each in messages]
        return super().push_messages(messages)

    def pull_messages(self, message_ids):
        replies = super().pull_messages(message_ids)
        self.up += [(each.metadata, each.content) for each in replies if not each.has_error()]
        return replies


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, qwen2_folder):
    def make(name: str, *words: str) -> tuple[ServerInputs, RunFolder]:
        root = tmp_path_factory.mktemp(name)
        config = compose(
            [
                "model=qwen2.5",
                f"model.device.path='{qwen2_folder}'",
                f"model.cloud.path='{qwen2_folder}'",
                "model.cloud.dtype=float32",
                "baselines.fedavg_rounds=2",
                "baselines.thesaurus=world",
                "model.device.dtype=float32",
                "task=lamp_4",
                "task.max_new_tokens=4",
                "resources.retries=0",
                f"methods=[{','.join(METHODS)}]",
                "users=3",
                "augmenter.k=2",
                "qlora.learning_rate=0.005",
                "qlora.base_epochs=1",
                "qlora.compute_dtype=float32",
                "qlora.cohort=1",
                "stream.bins=2",
                "stream.every=3",
                "stream.sampling.max_new_tokens=8",
                *words,
            ]
        )
        cache = tmp_path_factory.getbasetemp() / "cache-of-wire-tests"
        config = replace(config, paths=replace(config.paths, cache=str(cache), runs=str(root)))
        run = RunFolder(root / "run")
        for user in USERS:
            folder.create(
                run.devices,
                history(user),
                policy_of(config, RATIOS[user]),
                user.encode() * 10 + b"xy",
            )
        others = public.write(cache / "public", [history("public-user")])
        return ServerInputs(config, run.path, others, lambda: [*map(history, USERS)]), run

    return make


def simulate(grid_class, inputs: ServerInputs, run: RunFolder):
    from clients.app import app

    grid = grid_class(app, len(USERS), client_run_config(inputs.config, run))
    grid.cloud_networks = []
    load = loading.load_causal

    def watched(*arguments, **options):
        network = load(*arguments, **options)
        grid.cloud_networks.append(weakref.ref(network))
        return network

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "load_causal", watched)
        run_experiment(grid, inputs, LoggedProgress(), cloud=Cloud(Generator(), NliScorer()))
    return grid


@pytest.fixture(scope="module")
def recorded(inputs):
    made, run = inputs("recorded")
    return simulate(RecordingGrid, made, run), run, made


@pytest.fixture(scope="module")
def together(inputs):
    """The same run with the devices in cohorts of two and one."""
    made, run = inputs("together", "qlora.cohort=2")
    return simulate(RecordingGrid, made, run), run, made


def rows(run: RunFolder, name: str) -> list[dict]:
    return list(jsonlines.read(run.path / f"{name}.jsonl"))


def body_of(kinds, metadata, content):
    return decode(kinds[metadata.message_type], content)


def arm_of(content) -> str:
    return content.config_records["texts"].get("arm", "")


def adapter_bytes(run: RunFolder, user: str, arm: str) -> bytes:
    own = run.devices / folder.folder_name(user) / "adapters"
    return (own / arm / "adapter_model.safetensors").read_bytes()


def bodies(grid, kind: str, arm: str, direction: str) -> list:
    kinds = DEVICE_TO_SERVER if direction == "up" else SERVER_TO_DEVICE
    return [
        body_of(kinds, metadata, content)
        for metadata, content in getattr(grid, direction)
        if metadata.message_type == kind and arm_of(content) == arm
    ]


def test_every_user_answers_in_every_arm(recorded, together):
    for _, run, _ in (recorded, together):
        assert rows(run, "failures") == []
        answered = {(row["arm"], row["user"]) for row in rows(run, "answers")}
        assert answered == {(arm, user) for arm in METHODS for user in USERS}


def test_every_message_of_every_method_holds_only_what_the_table_allows(recorded, together):
    grids = [grid for grid, _, _ in (recorded, together)]
    for messages, kinds, direction in (
        *((grid.up, DEVICE_TO_SERVER, "up") for grid in grids),
        *((grid.down, SERVER_TO_DEVICE, "down") for grid in grids),
    ):
        assert messages
        for metadata, content in messages:
            body = body_of(kinds, metadata, content)
            sharing = [name for name, row in WIRE_TABLE.items() if "shared pairs" in row.up]
            methods = [getattr(body, "arm", "")] if getattr(body, "arm", "") else sharing
            allowed = ALWAYS.union(*(getattr(WIRE_TABLE[name], direction) for name in methods))
            assert contents(body) <= allowed, metadata.message_type


def test_no_serialised_byte_holds_an_unshared_record_a_query_or_a_gold_answer(recorded):
    grid, _, _ = recorded
    up = b"".join(serialise(content) for _, content in grid.up)
    down = b"".join(serialise(content) for _, content in grid.down)
    shared = {
        pair.id
        for metadata, content in grid.up
        if metadata.message_type == "query.share"
        for pair in body_of(DEVICE_TO_SERVER, metadata, content).pairs
    }
    assert {name.split("-")[0] for name in shared} == {"ana", "eve"}
    for user in USERS:
        for pair in history(user).pairs:
            canary = pair.input.split()[1].encode()
            assert (canary in up) == (pair.id in shared)
            assert (canary in down) <= (pair.id in shared)
        for wire in (up, down):
            assert f"secretquery{user}".encode() not in wire
            assert f"secretgold{user}".encode() not in wire


def test_devices_that_work_together_get_what_they_get_alone(recorded, together):
    (_, alone, _), (grid, cohorts, _) = recorded, together
    assert {each.message_type for each, _ in grid.down} >= {"train.queue", "train.collect"}
    paths = sorted(alone.devices.glob("*/adapters/*/adapter_model.safetensors"))
    assert len(paths) > 20
    for path in paths:
        mine, theirs = load_file(path), load_file(cohorts.devices / path.relative_to(alone.devices))
        for name, weight in mine.items():
            # rounding differs by processor, and AdamW enlarges it: 1.1e-5 was seen
            torch.testing.assert_close(theirs[name], weight, atol=5e-5, rtol=0)
    no_rounding = ("gold", "prediction", "parsed", "tokens", "query", "arm", "user")
    answers = [
        sorted(str([row[name] for name in no_rounding]) for row in rows(run, "answers"))
        for run in (alone, cohorts)
    ]
    assert answers[0] == answers[1]


def test_adapter_weights_cross_the_wire_for_fedavg_alone(recorded):
    grid, run, _ = recorded
    holding = {"weights": set(), "logits": set()}
    for _, content in (*grid.up, *grid.down):
        for name in content.array_records:
            holding[name].add(arm_of(content))
    assert holding == {"weights": {"fedavg"}, "logits": {"rkd_ft"}}
    assert len(list(run.devices.glob("*/adapters/cdcda/adapter_model.safetensors"))) == 3


@pytest.mark.parametrize(("way", "kind"), [("recorded", "adapt"), ("together", "queue")])
def test_kept_pairs_reach_only_the_user_they_were_made_for(way, kind, request):
    grid, _, _ = request.getfixturevalue(way)
    by_node = {
        metadata.src_node_id: body_of(DEVICE_TO_SERVER, metadata, content).user_id
        for metadata, content in grid.up
        if metadata.message_type == "query.hello"
    }
    kept = {
        by_node[metadata.dst_node_id]: body_of(SERVER_TO_DEVICE, metadata, content).kept
        for metadata, content in grid.down
        if metadata.message_type == f"train.{kind}" and arm_of(content) == "cdcda"
    }
    assert kept["ben"] == ()
    assert len(kept["ana"]) == 6
    assert all(f"canary{user}" in pair.input for user in USERS for pair in kept[user])


def test_the_ledger_counts_the_bytes_of_the_serialised_messages(recorded):
    grid, run, made = recorded
    lines = rows(run, "ledger")
    for messages, direction in ((grid.up, "device -> server"), (grid.down, "server -> device")):
        expected = sum(len(serialise(content)) for _, content in messages)
        counted = [line for line in lines if line["direction"] == direction]
        messages = [line for line in counted if line["kind"] not in ("M_base", "device model")]
        assert sum(line["bytes"] for line in messages) == expected
    base = [line for line in lines if line["kind"] == "M_base"]
    assert sorted(line["user"] for line in base) == list(USERS)
    weights = Path(made.config.paths.cache, "bases", base[0]["hash"]).glob("*.safetensors")
    assert base[0]["bytes"] == sum(path.stat().st_size for path in weights)


def test_the_matched_control_takes_as_many_steps_on_the_own_records_alone(recorded):
    _, run, _ = recorded
    steps = {(row["arm"], row["user"]): row for row in rows(run, "adaptations")}
    for user in USERS:
        matched, full = steps["direct_ft_matched", user], steps["cdcda", user]
        assert matched["steps"] == full["steps"]
        assert (matched["synthetic"], matched["records"]) == (0, 6)


@pytest.mark.parametrize("arm", ["cdcda", "cdcda_random", "copies_ft", "eda_ft", "rkd_ft"])
def test_every_method_of_a_user_who_shares_nothing_is_direct_ft_to_the_last_byte(recorded, arm):
    _, run, _ = recorded
    assert adapter_bytes(run, "ben", arm) == adapter_bytes(run, "ben", "direct_ft")
    assert adapter_bytes(run, "eve", arm) != adapter_bytes(run, "eve", "direct_ft")


@pytest.mark.parametrize("arm", ["copies_ft", "eda_ft"])
def test_a_device_adds_k_of_each_record_it_would_share_and_shares_none(recorded, arm):
    grid, run, _ = recorded
    added = {row["user"]: row["synthetic"] for row in rows(run, "adaptations") if row["arm"] == arm}
    assert added == {"ana": 2 * 3, "ben": 0, "eve": 2 * 6}
    assert all(request.kept == () for request in bodies(grid, "train.adapt", arm, "down"))


def test_users_may_share_by_the_scores_of_their_own_device(inputs):
    made, run = inputs("by-scores", "methods=[cdcda]", "ratios=[0.5,1.0]", "privacy.select=dac24")
    fix_orders(run.devices, scorer(made.config, made.public))
    grid = simulate(RecordingGrid, made, run)
    replies = {reply.user_id: reply for reply in bodies(grid, "query.share", "", "up")}
    assert {user: reply.counts for user, reply in replies.items()} == {
        "ana": (3, 3),
        "ben": (0, 0),
        "eve": (3, 6),
    }
    for reply in replies.values():
        own = run.devices / folder.folder_name(reply.user_id)
        places = json.loads((own / "usefulness.json").read_text())
        shared = [places[pair.id] for pair in reply.pairs]
        assert shared == sorted(places.values())[: len(shared)]
        assert contents(reply) <= {"identity", "numbers", "shared pairs"}


STREAMING = [name for name in METHODS if name.startswith("dac24")]


@pytest.mark.parametrize("arm", STREAMING)
def test_a_streaming_device_keeps_two_records_and_sends_numbers_alone(recorded, arm):
    grid, run, _ = recorded
    replies = bodies(grid, "train.adapt", arm, "up")
    assert [reply.records for reply in replies] == [2, 2, 2]
    for reply in replies:
        assert contents(reply) <= {"identity", "settings", "numbers"}
        assert reply.curve_seen == (0, 3, 6)
        assert 2 <= reply.annotations <= 6
        assert 0 < reply.buffer_bytes <= 2 * 22528
    for request in bodies(grid, "train.adapt", arm, "down"):
        assert contents(request) == {"settings"}
    assert len(list(run.devices.glob(f"*/adapters/{arm}/adapter_model.safetensors"))) == 3


def test_methods_that_stream_differ_in_their_recipe_alone(recorded):
    grid, _, _ = recorded
    recipes = {
        arm: json.loads(bodies(grid, "train.adapt", arm, "down")[0].recipe)["stream"]
        for arm in STREAMING
    }
    for arm, recipe in recipes.items():
        differing = {key for key in recipe if recipe[key] != recipes["dac24"][key]}
        assert differing <= {"replace", "scores", "synthesis"}
        assert bool(differing) == (arm != "dac24")


def test_rag_answers_with_the_adapter_of_the_method_without_it(recorded):
    grid, run, _ = recorded
    for arm in ("device_rag", "direct_ft_rag", "cdcda_rag"):
        assert bodies(grid, "train.adapt", arm, "down") == []
        assert {each.retrieved for each in bodies(grid, "evaluate.answer", arm, "down")} == {4}
        assert not list(run.devices.glob(f"*/adapters/{arm}"))
    (request, *_) = bodies(grid, "evaluate.answer", "cdcda_rag", "down")
    assert request.adapter_name == "cdcda"


def test_the_teachers_logits_go_to_the_user_who_shared_and_stand_in_the_ledger(recorded):
    grid, run, _ = recorded
    for request in bodies(grid, "train.adapt", "rkd_ft", "down"):
        assert len({name.split("-")[0] for name in request.logits}) <= 1
        assert all(rows.dtype == "float16" and rows.ndim == 2 for rows in request.logits.values())
    counts = sorted(len(each.logits) for each in bodies(grid, "train.adapt", "rkd_ft", "down"))
    assert counts == [0, 3, 6]
    lines = [line for line in rows(run, "ledger") if "logits" in line["fields"]]
    assert sorted(line["user"] for line in lines) == ["ana", "eve"]


def test_no_network_of_the_cloud_is_held_when_devices_adapt(recorded):
    grid, run, _ = recorded
    assert len(grid.cloud_networks) >= 3  # M_base's, M_cloud's and the large model itself
    assert grid.held_at_adaptation == 0
    gc.collect()
    assert not list(run.path.glob("teacher-*"))


def test_fedavg_answers_with_the_mean_of_the_last_rounds_weights_on_every_device(recorded):
    from safetensors.numpy import load

    grid, run, _ = recorded
    last = bodies(grid, "train.adapt", "fedavg", "up")[-3:]
    name = next(iter(last[0].weights))
    mean = sum(reply.weights[name].astype("float64") for reply in last) / 3  # 6 records each
    stored = [load(adapter_bytes(run, user, "fedavg"))[name] for user in USERS]
    for own in stored:
        assert abs(own - mean).max() < 1e-7
    assert not (last[0].weights[name] == last[1].weights[name]).all()


def test_oracles_send_no_message_and_the_ledger_says_what_they_read(recorded):
    grid, run, _ = recorded
    oracles = {"cloud_zero_shot", "cloud", "cloud_rag", "unified"}
    assert oracles.isdisjoint(arm_of(content) for _, content in (*grid.up, *grid.down))
    lines = [row for row in rows(run, "ledger") if row["direction"] == "all data in the cloud"]
    assert {(row["arm"], row["user"]) for row in lines} == {
        (arm, user) for arm in oracles for user in USERS
    }
    assert all(row["records"] == 6 for row in lines)


def test_the_untuned_device_model_is_another_download(recorded):
    grid, run, _ = recorded
    (request, *_) = bodies(grid, "evaluate.answer", "device_zero_shot", "down")
    (tuned, *_) = bodies(grid, "evaluate.answer", "device", "down")
    assert request.base_id != tuned.base_id
    lines = [row for row in rows(run, "ledger") if row["kind"] == "device model"]
    assert {(row["user"], row["hash"]) for row in lines} == {(u, request.base_id) for u in USERS}


# One of each way to train and to answer: the order of replies is the server's own matter.
REORDERED = (
    "device", "direct_ft", "cdcda", "cdcda_rag", "direct_ft_matched", "eda_ft", "self_ft", "rkd_ft",
    "cdcda_random", "fedavg", "unified", "dac24",
)  # fmt: skip


def test_the_same_seed_gives_the_same_bytes_whatever_the_reply_order(recorded, inputs):
    _, first, _ = recorded
    made, second = inputs("reversed", f"methods=[{','.join(REORDERED)}]")
    simulate(ReversedGrid, made, second)
    paths = sorted(second.devices.glob("*/adapters/*/adapter_model.safetensors"))
    assert {path.parent.name for path in paths} >= {"direct_ft", "rkd_ft", "cdcda", "dac24"}
    for path in paths:
        other = first.devices / path.relative_to(second.devices)
        assert path.read_bytes() == other.read_bytes()
    for name in ("answers", "augmentation"):  # lines stand there in the order of the replies
        found = [
            sorted(map(str, strip_times(of_arms(rows(run, name), REORDERED))))
            for run in (first, second)
        ]
        assert found[0] == found[1] != []
    texts = [
        {line["hash"] for line in of_arms(rows(run, "ledger"), REORDERED)
         if line["kind"] == "train.adapt" and line["direction"] == "server -> device"}
        for run in (first, second)
    ]  # fmt: skip
    assert texts[0] == texts[1] != set()


def of_arms(lines: list[dict], arms: Sequence[str]) -> list[dict]:
    return [line for line in lines if line["arm"] in arms]


def strip_times(lines: list[dict]) -> list[dict]:
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def test_plain_peft_loads_an_adapter_and_gives_the_same_logits(recorded):
    from peft import PeftModel

    from clients import adapters, base
    from models.loading import load_device_base, load_tokenizer
    from protocol.settings import settings_of

    _, run, made = recorded
    device = folder.read(run.devices / folder.folder_name("eve"))
    path = adapters.adapter_folder(device, "cdcda")
    base_id = json.loads((path / "COMPLETE.json").read_text())["base_id"]
    base_folder = Path(made.config.paths.cache, "bases", base_id)
    settings = settings_of(made.config)
    own = base.load(base_folder, settings.qlora, settings.torch_threads)
    adapters.load_into(device, "cdcda", own.model)
    plain = PeftModel.from_pretrained(
        load_device_base(str(base_folder), settings.qlora, "cpu"), str(path)
    )
    ids = torch.tensor([load_tokenizer(str(base_folder))("a quiet film")["input_ids"]])
    with torch.inference_mode():
        ours, theirs = own.model.eval()(ids).logits, plain.eval()(ids).logits
        with own.model.disable_adapter():
            without = own.model(ids).logits
    torch.testing.assert_close(ours, theirs)
    assert not torch.allclose(ours, without)


def test_an_adapter_that_serves_several_arms_is_trained_once_for_each_ratio(inputs):
    made, run = inputs("ratios", "methods=[cdcda_rag,copies_ft,cdcda,rkd_ft]", "ratios=[0.5,1.0]")
    simulate(InlineGrid, made, run)
    assert rows(run, "failures") == []
    trained = {(row["arm"], row["user"]): row["synthetic"] for row in rows(run, "adaptations")}
    assert {arm for arm, _ in trained} == {
        f"{method}@{ratio}" for method in ("cdcda_rag", "copies_ft", "rkd_ft") for ratio in (0.5, 1)
    }
    assert (trained["copies_ft@0.5", "eve"], trained["copies_ft@1", "eve"]) == (6, 12)
    adapters = {path.parent.name for path in run.devices.glob("*/adapters/*/*.safetensors")}
    assert {"cdcda@0.5", "cdcda@1"} <= adapters
    assert not any(name.startswith("cdcda_rag") for name in adapters)


def test_a_teacher_of_another_vocabulary_is_refused(inputs, qwen2_folder, tmp_path):
    shutil.copytree(qwen2_folder, tmp_path / "other")
    settings = json.loads((tmp_path / "other" / "config.json").read_text())
    settings["vocab_size"] += 8
    (tmp_path / "other" / "config.json").write_text(json.dumps(settings))
    made, run = inputs("other", "methods=[rkd_ft]", f"model.cloud.path='{tmp_path / 'other'}'")
    with pytest.raises(ConfigError, match="one vocabulary"):
        simulate(InlineGrid, made, run)


def test_predictions_are_shipped_only_when_asked_for_and_the_ledger_says_so(inputs):
    made, run = inputs("shipped", "methods=[device]", "evaluation.ship_predictions=true")
    grid = simulate(RecordingGrid, made, run)
    up = b"".join(serialise(content) for _, content in grid.up)
    assert b"secretgoldana0" in up
    assert any("texts" in line["fields"] for line in rows(run, "ledger"))


def test_sums_disclose_no_single_query(inputs):
    made, run = inputs("sums", "methods=[device]", "evaluation.disclose=sums")
    grid = simulate(RecordingGrid, made, run)
    up = b"".join(serialise(content) for _, content in grid.up)
    assert b"ana-q0" not in up
    assert all(row["query"] is None and row["queries"] == 2 for row in rows(run, "answers"))
