"""Canaries, what they measure, and that unshared ones appear nowhere outside the device."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from clients import folder, outbound
from clients.app import app
from conf.compose import compose, to_json
from conf.errors import ConfigError
from lamp import tasks
from lamp.records import Pair, ProfileItem, Query, UserHistory
from protocol.wire import serialise
from sim.folders import RunFolder
from sim.leakage import audit, measure, texts
from sim.leakage.canaries import (
    ALTERNATIVES,
    alternatives,
    canaries_of,
    is_canary,
    plant,
    vocabulary,
)
from sim.report import leakage_tables as report
from sim.report.pooling import summarise
from sim.report.run_records import read_run
from sim.run.engine import client_run_config
from sim.run.inline import InlineGrid
from sim.run.provision import policy_of
from sim.run.server import ServerInputs, run_experiment
from storage import atomic, jsonlines
from strategy import public
from strategy.cloud_models import Cloud
from strategy.progress import LoggedProgress
from tests.plugins.stand_ins import Generator, NliScorer

# One process for all of them: each would simulate the whole run anew.
pytestmark = pytest.mark.xdist_group("leakage")

USERS = ("ana", "ben", "eve")
RATIOS = {"ana": 0.5, "ben": 0.0, "eve": 1.0}
CANARIES = 4


def test_exposure_by_hand():
    assert measure.exposure(9, [1, 2, 3]) == 2  # first of four
    assert measure.exposure(0, [1, 2, 3]) == 0  # last of four
    assert measure.exposure(1, [5, 1, 1]) == 2 - 1.584962500721156  # ties: the third place
    assert abs(measure.chance_exposure(255) - 1.42) < 0.01
    assert measure.chance_exposure(1) == 0.5


def test_auc_by_hand():
    assert measure.auc([3, 4], [1, 2]) == 1
    assert measure.auc([1, 2], [3, 4]) == 0
    assert measure.auc([1, 2], [1, 2]) == 0.5
    assert measure.auc([3, 1], [2]) == 0.5
    assert measure.auc([], [1]) is None


def test_true_positives_at_a_low_rate_find_what_was_planted_and_no_more():
    outsiders = [number / 10_000 for number in range(10_000)]
    limit = measure.threshold(outsiders, 0.01)
    assert sum(score > limit for score in outsiders) == 100
    assert measure.share_above([2.0, 3.0, 0.5], limit) == 2 / 3
    assert measure.share_above(outsiders[::7], limit) == pytest.approx(0.01, abs=1e-3)
    rare = measure.threshold(outsiders, 0.001)
    assert sum(score > rare for score in outsiders) == 10
    assert measure.threshold([0.0] * 200, 0.01) == 0.0
    assert measure.share_above([0.0, 0.0], 0.0) == 0  # an adapter that changes nothing


def test_what_too_few_outsiders_cannot_say_is_not_said():
    assert measure.threshold([0.0] * 99, 0.01) is None
    assert measure.threshold([0.0] * 9_999, 0.001) is None
    assert measure.share_above([1.0], None) is None
    assert measure.share_above([], 0.0) is None


def documents(number: int, words) -> dict[str, str]:
    draw = Random(1)
    common = [f"w{n}" for n in range(200)]
    return {
        f"u{n}": " ".join([*draw.choices(common, k=30), *words(n)]) for n in range(number)
    }  # fmt: skip


def test_a_group_is_guessed_where_texts_tell_it_and_only_there():
    groups = {f"u{n}": "abc"[n % 3] for n in range(60)}

    def guessed(words):
        texts_of = documents(60, words)
        known = [(texts_of[user], groups[user]) for user in list(groups)[:30]]
        asked = {user: texts_of[user] for user in list(groups)[30:]}
        return texts.guessed_groups(known, asked)

    told, majority = guessed(lambda n: [f"dialect-{'abc'[n % 3]}"] * 3)
    assert majority == "a"
    assert all(told[user] == groups[user] for user in told)
    assert len(told) == 30
    nothing, _ = guessed(lambda n: [])
    assert sum(nothing[user] == groups[user] for user in nothing) < 18  # 10 by chance
    assert texts.guessed_groups([("w", "a")], {"u": "w"}) == ({}, "a")
    assert texts.guessed_groups([("w", "a"), ("v", "b")], {"u": " "})[0] == {}


def test_halves_of_a_share_are_linked_where_texts_tell_who_wrote_them_and_only_there():
    first = documents(30, lambda n: [f"habit{n}"])
    again = {user: " ".join(reversed(text.split()[-5:])) for user, text in first.items()}
    assert set(texts.linked(first, again).values()) == {1.0}
    others = documents(60, lambda n: [])
    other = {f"u{n}": others[f"u{n + 30}"] for n in range(30)}
    assert sum(texts.linked(documents(30, lambda n: []), other).values()) < 6  # 1 by chance
    same = dict.fromkeys(first, "one text")
    assert set(texts.linked(same, same).values()) == {1 / 30}
    assert texts.linked({"a": "x"}, {"a": "x"}) == {}


def test_canaries_of_public_words_are_made_of_them_and_need_enough():
    public_words = tuple(f"word{chr(97 + n % 26)}{chr(97 + n // 26)}" for n in range(60))
    user = UserHistory("p", (), (Pair("1", " ".join(public_words).upper(), "Wordaa!"),), ())
    assert vocabulary("public", [user]) == tuple(sorted(public_words))
    assert vocabulary("random", []) == ()
    task = task_of("lamp_4")
    (canary,) = canaries_of("ana", task, 1, 0, public_words)
    others = alternatives(canary, "ana", task, 0, public_words)
    assert {word for each in (canary, *others) for word in each.words} <= set(public_words)
    with pytest.raises(ConfigError, match="expected 50 words in the public users' records, got 1"):
        vocabulary("public", [UserHistory("p", (), (Pair("1", "few", "few 12"),), ())])


def test_a_group_is_the_most_frequent_label_or_the_worlds_register():
    labels, words = compose(["task=lamp_2"]), compose(["task=lamp_4"])
    pairs = tuple(Pair(str(n), "a film", tag) for n, tag in enumerate("baabc"))
    task = replace(task_of("lamp_2"), pair_labels=("a", "b", "c"))
    assert texts.group_of(UserHistory("200001", (), pairs, ()), task, labels) == "a"
    found = [
        texts.group_of(UserHistory(f"4{n:05d}", (), (), ()), task_of("lamp_4"), words)
        for n in range(30)
    ]
    assert set(found) == {"0", "1", "2"}
    real = replace(words, data="somewhere")
    assert texts.group_of(UserHistory("400001", (), (), ()), task_of("lamp_4"), real) is None


def task_of(name: str):
    return tasks.task(compose([f"task={name}"]).task)


@pytest.mark.parametrize("name", ["lamp_1", "lamp_2", "lamp_3", "lamp_4", "lamp_5", "lamp_7"])
def test_a_canary_is_a_record_of_its_task(name):
    task = task_of(name)
    (canary, other) = canaries_of("ana", task, 2, seed=0)
    pair = canary.pair(task)
    assert all(word in pair.input for word in canary.key.split())
    assert (pair.response in task.pair_labels) if task.pair_labels else canary.value
    assert canary.words != other.words
    assert canaries_of("ana", task, 2, seed=0) == (canary, other)
    assert canaries_of("ben", task, 2, seed=0)[0].words != canary.words
    candidates = alternatives(canary, "ana", task, seed=0)
    assert len(candidates) == (len(task.pair_labels) - 1 if task.pair_labels else ALTERNATIVES)
    assert all(each.key == canary.key and each.value != canary.value for each in candidates)


def test_canaries_stand_behind_the_users_own_records():
    task = task_of("lamp_4")
    own = history("ana")
    planted = plant(own, task, CANARIES, seed=0)
    assert planted.pairs[: len(own.pairs)] == own.pairs
    assert [pair.id for pair in planted.pairs[len(own.pairs) :]] == [
        f"canary-{number}" for number in range(CANARIES)
    ]
    assert [item.id for item in planted.profile] == [pair.id for pair in planted.pairs]
    assert {item.date for item in planted.profile[-CANARIES:]} == {own.profile[-1].date}
    assert plant(own, task, 0, seed=0) == own


def history(user: str) -> UserHistory:
    """Six records about films, two queries."""
    pairs = tuple(Pair(f"{user}-{n}", f"{user} text about {n} films", f"y{n}") for n in range(6))
    profile = tuple(
        ProfileItem(pair.id, {"text": pair.input, "title": pair.response}, f"2020-01-0{n + 1}")
        for n, pair in enumerate(pairs)
    )
    query = "Generate a headline for the following article: "
    queries = tuple(Query(f"{user}-q{n}", f"{query}{user} asks {n}", f"g{n}") for n in range(2))
    return UserHistory(user, profile, pairs, queries)


class RecordingGrid(InlineGrid):
    """Keeps the bytes of everything that crosses."""

    wire = b""

    def push_messages(self, messages):
        messages = list(messages)
        self.wire += b"".join(serialise(each.content) for each in messages)
        return super().push_messages(messages)

    def pull_messages(self, message_ids):
        replies = super().pull_messages(message_ids)
        self.wire += b"".join(serialise(each.content) for each in replies if not each.has_error())
        return replies


@pytest.fixture(scope="module")
def audited(tmp_path_factory, qwen2_folder):
    """A run with canaries, its wire, and its audit."""
    root = tmp_path_factory.mktemp("leakage")
    config = compose(
        [
            "model=qwen2.5",
            f"model.device.path='{qwen2_folder}'",
            "model.device.dtype=float32",
            "task.max_new_tokens=2",
            "methods=[device,direct_ft,cdcda]",
            "users=3",
            "privacy=fixed",
            f"privacy.canaries={CANARIES}",
            "augmenter.k=1",
            "qlora.learning_rate=0.02",
            "qlora.epochs=4",
            "qlora.batch_size=4",
            "qlora.base_epochs=1",
            "qlora.compute_dtype=float32",
            "evaluation.bootstrap=200",
        ]
    )
    paths = replace(config.paths, cache=str(root / "cache"), runs=str(root))
    config, run = replace(config, paths=paths), RunFolder(root / "run")
    task = tasks.task(config.task)
    for user in USERS:
        planted = plant(history(user), task, CANARIES, config.seed)
        secret = user.encode() * 10 + b"xy"
        folder.create(run.devices, planted, policy_of(config, RATIOS[user]), secret)
    atomic.write_text(run.config, to_json(config))
    others = public.write(root / "cache" / "public", [history("public-user")])
    grid = RecordingGrid(app, len(USERS), client_run_config(config, run))
    inputs = ServerInputs(config, run.path, others)
    run_experiment(grid, inputs, LoggedProgress(), cloud=Cloud(Generator(), NliScorer()))
    atomic.write_json(run.server, {"public": str(others.path), "content_hash": others.content_hash})
    audit.audit(run, LoggedProgress())
    return run, config, grid.wire


def sides(run: RunFolder, config) -> dict[str, dict[str, list]]:
    """Per user the canaries that consent covers and those that it does not."""
    found = {}
    for user in USERS:
        device = folder.read(run.devices / folder.folder_name(user))
        sent = {pair.id for pair in outbound.grant(device, [1.0]).pairs if is_canary(pair.id)}
        all_of_them = canaries_of(user, tasks.task(config.task), CANARIES, config.seed)
        found[user] = {
            "shared": [canary for canary in all_of_them if canary.id in sent],
            "unshared": [canary for canary in all_of_them if canary.id not in sent],
        }
    return found


def test_unshared_canaries_appear_in_no_message_and_no_cloud_text(audited):
    run, config, wire = audited
    cached = Path(config.paths.cache, "augmentation.sqlite").read_bytes()
    cached += Path(config.paths.cache, "augmentation.sqlite-wal").read_bytes() if Path(
        config.paths.cache, "augmentation.sqlite-wal"
    ).exists() else b""  # fmt: skip
    unshared = 0
    for by_side in sides(run, config).values():
        for canary in by_side["unshared"]:
            unshared += 1
            assert not any(
                word.encode() in wire or word.encode() in cached for word in canary.words
            )
        for canary in by_side["shared"]:
            assert all(word.encode() in wire for word in canary.words)
            assert any(word.encode() in cached for word in canary.words)
    assert unshared >= CANARIES  # ben shares nothing


def test_the_server_keeps_no_canary_in_its_files(audited):
    run, config, _ = audited
    texts = b"".join(path.read_bytes() for path in run.path.glob("*.json*"))
    for by_side in sides(run, config).values():
        for canary in (*by_side["shared"], *by_side["unshared"]):
            assert not any(word.encode() in texts for word in canary.words)


def test_the_audit_ranks_every_canary_and_tells_shared_from_unshared(audited):
    run, config, _ = audited
    rows = list(jsonlines.read(run.path / audit.FILE))
    assert {(row["arm"], row["user"]) for row in rows} == {
        (arm, user) for arm in ("cloud texts", "direct_ft", "cdcda") for user in USERS
    }
    for row in rows:
        own = sides(run, config)[row["user"]]
        assert {side: len(bits) for side, bits in row["exposure"].items()} == {
            side: len(canaries) for side, canaries in own.items()
        }
    cloud = [row for row in rows if row["arm"] == "cloud texts"]
    assert all(bit == 8 for row in cloud for bit in row["exposure"]["shared"])
    assert all(abs(bit - 1) < 0.01 for row in cloud for bit in row["exposure"]["unshared"])
    assert sum(row["found"]["unshared"] for row in cloud) == 0


def test_an_adapter_that_trained_hard_on_canaries_exposes_them(audited):
    run, *_ = audited
    bits = [
        bit
        for row in jsonlines.read(run.path / audit.FILE)
        if row["arm"] == "direct_ft"
        for side in ("shared", "unshared")
        for bit in row["exposure"][side]
    ]
    assert sum(bits) / len(bits) > measure.chance_exposure(ALTERNATIVES) + 1


def test_memorised_canaries_stand_above_the_values_that_were_not_given(audited):
    run, *_ = audited
    rows = [row for row in jsonlines.read(run.path / audit.FILE) if row["arm"] == "direct_ft"]
    assert {row["outsiders"]["canaries"] for row in rows} == {3 * CANARIES * ALTERNATIVES}
    for row in rows:
        assert row["tpr"]["canaries"]["0.001"] == {"shared": None, "unshared": None}
        assert row["tpr"]["records"]["0.01"] == {"shared": None, "unshared": None}
    found = [
        row["tpr"]["canaries"]["0.01"][side]
        for row in rows
        for side in audit.SIDES
        if row["exposure"][side]
    ]
    assert sum(found) / len(found) > 0.05
    aucs = [auc for row in rows for auc in row["canary_auc"].values() if auc is not None]
    assert sum(aucs) / len(aucs) > 0.6


def test_the_report_says_it_plainly(audited):
    run, *_ = audited
    atomic.write_text(run.manifest, json.dumps({}))
    results = summarise([read_run(run.path)])
    said = " ".join(report.sentences(results))
    assert "unshared canaries a text of the cloud holds more words than of any of 255" in said
    assert "drawn alike: none." in said
    assert "halves of a user's share are linked from shared records in" in said
    assert "They never leave the device." in said
    found = report.tables(results)
    assert found["exposure"] is not None
    assert found["membership"] is not None
    assert found["power"] is not None
    assert found["who_wrote"] is not None
    assert "at most 8.0" in report.notes(results)
