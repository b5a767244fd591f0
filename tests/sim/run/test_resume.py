"""A run that is ended anywhere and gone on with equals one that was not."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Message

from clients import folder
from conf.compose import compose, to_json
from conf.errors import RunError
from lamp.records import Pair, Query, UserHistory
from protocol.codec import decode, encode
from protocol.messages import AdaptReply
from sim import exit_status
from sim.commands import resume
from sim.folders import RunFolder, find_run, locked, new_run_folder
from sim.run import lifecycle
from sim.run.engine import client_run_config
from sim.run.inline import InlineGrid
from sim.run.provision import policy_of
from sim.run.server import ServerInputs, run_experiment
from storage import jsonlines
from strategy import public
from strategy.augmentation import Reply
from strategy.cloud_models import Cloud
from strategy.progress import LoggedProgress

# One process for all of them: each would simulate the whole run anew.
pytestmark = pytest.mark.xdist_group("resume")

USERS = ("ana", "ben", "eve")
METHODS = ("device", "direct_ft", "cdcda", "rkd_ft", "fedavg", "unified")


class Crash(BaseException):
    """Nothing in the product catches it, as nothing catches a kill."""


class CrashingGrid(InlineGrid):
    """Ends the driver at one delivery: before the device works, or when its reply is lost."""

    def __init__(self, *arguments, at: int):
        super().__init__(*arguments)
        self._left = at

    def _deliver(self, message):
        self._left -= 1
        if self._left == 0:
            raise Crash
        name = super()._deliver(message)
        self._left -= 1
        if self._left == 0:
            raise Crash
        return name


class Generator:
    identity = "stand-in writer"

    def write(self, prompts, seeds, on_done):
        on_done(len(prompts))
        return [
            Reply(f"Input: [{prompt.split('Input: [')[1][:20]} {seed % 7}], Response: [new]", 9)
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]


class NliScorer:
    identity = "stand-in judge"

    def cut(self, pairs):
        return sum(len(first) > 50 for first, _ in pairs)

    def both_ways(self, pairs):
        return [(0.9, 0.9)] * len(pairs)


def history(user: str) -> UserHistory:
    pairs = tuple(Pair(f"{user}-{n}", f"{user} wrote about {n}", f"title {n}") for n in range(4))
    ask = "Generate a headline for the following article: "
    return UserHistory(user, (), pairs, (Query(f"{user}-q", f"{ask}{user} asks", "a title"),))


@pytest.fixture(scope="module")
def make(tmp_path_factory, qwen2_folder):
    def make_inputs(name: str) -> tuple[ServerInputs, RunFolder]:
        config = compose(
            [
                "model=qwen2.5",
                *(f"model.{which}.path='{qwen2_folder}'" for which in ("cloud", "device")),
                *(f"model.{which}.dtype=float32" for which in ("cloud", "device")),
                "task=lamp_4",
                "task.max_new_tokens=3",
                "resources.retries=0",
                f"methods=[{','.join(METHODS)}]",
                "baselines.fedavg_rounds=2",
                "users=3",
                "augmenter.k=1",
                "filters.eps_min_len=0",
                "filters.eps_max_len=9",
                "filters.eps_tdf=1",
                "qlora.base_epochs=1",
                "qlora.epochs=1",
                "qlora.compute_dtype=float32",
            ]
        )
        cache = tmp_path_factory.getbasetemp() / "cache-of-resume-tests"
        root = tmp_path_factory.mktemp(name)
        config = replace(config, paths=replace(config.paths, cache=str(cache), runs=str(root)))
        made = RunFolder(root / "run")
        for user in USERS:
            folder.create(
                made.devices,
                history(user),
                replace(policy_of(config, 1.0), permits=("weights",)),
                user.encode() * 10 + b"xy",
            )
        others = public.write(cache / "public", [history("public-user")])
        return ServerInputs(config, made.path, others, lambda: [*map(history, USERS)]), made

    return make_inputs


def simulate(inputs: ServerInputs, made: RunFolder, at: int = -1, app: Any = None) -> None:
    from clients.app import app as honest

    run_config = client_run_config(inputs.config, made)
    grid = CrashingGrid(app or honest, len(USERS), run_config, at=at)
    run_experiment(grid, inputs, LoggedProgress(), cloud=Cloud(Generator(), NliScorer()))


def rows(made: RunFolder, name: str) -> list[dict[str, Any]]:
    return list(jsonlines.read(made.path / f"{name}.jsonl"))


def adapters(made: RunFolder) -> dict[str, bytes]:
    found = made.devices.glob("*/adapters/*/adapter_model.safetensors")
    return {str(path.relative_to(made.devices)): path.read_bytes() for path in found}


def without_times(lines: list[dict[str, Any]]) -> list[str]:
    return sorted(
        json.dumps({key: value for key, value in line.items() if key != "seconds"}, sort_keys=True)
        for line in lines
    )


def deliveries(made: RunFolder) -> list[str]:
    """The ledger without re-deliveries; replies hold times, so only requests have equal hashes."""
    kept = ("user", "direction", "kind", "arm", "records", "fields", "request")
    return sorted(
        json.dumps([line[key] for key in kept])
        for line in rows(made, "ledger")
        if not line["redelivery"]
    )


@pytest.fixture(scope="module")
def undisturbed(make):
    inputs, made = make("undisturbed")
    simulate(inputs, made)
    return made


def test_a_run_that_is_ended_again_and_again_equals_an_undisturbed_one(make, undisturbed):
    inputs, made = make("ended")
    for at in (3, 9, 15, 16, 17, 20, 22, 28, 31):
        with pytest.raises(Crash):
            simulate(inputs, made, at)
    simulate(inputs, made)
    assert rows(made, "failures") == []
    for name in ("answers", "adaptations", "augmentation"):
        assert without_times(rows(made, name)) == without_times(rows(undisturbed, name)), name
    assert adapters(made) == adapters(undisturbed)
    assert deliveries(made) == deliveries(undisturbed)
    assert any(line["redelivery"] for line in rows(made, "ledger"))


def test_going_on_with_a_finished_run_computes_nothing(make, undisturbed):
    inputs, _ = make("again")
    before = {name: rows(undisturbed, name) for name in ("answers", "adaptations", "augmentation")}
    finished = replace(inputs, run_folder=undisturbed.path)
    simulate(finished, undisturbed)
    assert {name: rows(undisturbed, name) for name in before} == before
    again = [line for line in rows(undisturbed, "ledger") if line["redelivery"]]
    assert {line["kind"] for line in again} == {"query.hello", "query.share"}


def test_a_half_written_last_line_and_a_users_missing_lines_are_done_again(make, undisturbed):
    inputs, made = make("torn")
    shutil.copytree(undisturbed.path, made.path, dirs_exist_ok=True)
    answers = made.path / "answers.jsonl"
    lines = answers.read_bytes().splitlines(keepends=True)
    answers.write_bytes(b"".join(lines[:-1]) + lines[-1][: len(lines[-1]) // 2])
    simulate(inputs, made)
    assert without_times(rows(made, "answers")) == without_times(rows(undisturbed, "answers"))


def test_an_oracle_that_was_killed_while_it_noted_answers_notes_the_others_alone(make):
    inputs, made = make("oracle")
    inputs = replace(inputs, config=replace(inputs.config, methods=("unified",)))
    simulate(inputs, made)
    answers = made.path / "answers.jsonl"
    whole = answers.read_bytes().splitlines(keepends=True)
    answers.write_bytes(b"".join(whole[:-1]))
    simulate(inputs, made)
    assert answers.read_bytes().splitlines(keepends=True)[:-1] == whole[:-1]
    assert [row["user"] for row in rows(made, "answers")] == list(USERS)


def test_answers_count_as_done_only_when_every_query_is_there(tmp_path):
    from strategy.run_log import RunLog

    row = {"arm": "device", "user": "ana", "provenance_key": "x", "of": 2}
    jsonlines.append(tmp_path / "answers.jsonl", [{**row, "query": "q1"}])
    assert not RunLog(tmp_path).has_answered("device", "ana", "x")
    jsonlines.append(tmp_path / "answers.jsonl", [{**row, "query": "q2"}])
    assert RunLog(tmp_path).has_answered("device", "ana", "x")
    assert not RunLog(tmp_path).has_answered("device", "ana", "made from something else")


def test_a_user_who_failed_is_tried_again_and_then_no_longer_counts_as_failed(make, undisturbed):
    inputs, made = make("failed")
    adapter = made.devices / folder.folder_name("ben") / "adapters"
    adapter.write_text("no folder can be made here")
    simulate(inputs, made)
    assert {row["user"] for row in rows(made, "failures")} == {"ben"}
    assert {row["user"] for row in rows(made, "answers") if row["arm"] == "cdcda"} == {"ana", "eve"}
    assert lifecycle.status_of(made) == exit_status.PARTIAL
    adapter.unlink()
    simulate(inputs, made)
    assert {(row["arm"], row["kind"]) for row in rows(made, "failures")} == {
        ("fedavg", "MissedRound")  # two rounds went on without ben
    }
    assert {row["user"] for row in rows(made, "answers") if row["arm"] == "cdcda"} == set(USERS)


def test_weights_that_cannot_be_averaged_cost_their_user_the_round_and_nobody_else(make):
    """Also when the run is taken up again: the round is over, and what came of it is known."""
    from clients.app import app

    def lying(message: Message, context: Context) -> Message:
        reply = app(message, context)
        if message.metadata.message_type != AdaptReply.TYPE:
            return reply
        body = decode(AdaptReply, reply.content)
        if body.user_id == "ben" and body.weights:
            wrong = {name: array[:1] for name, array in body.weights.items()}
            reply.content = encode(replace(body, weights=wrong))
        return reply

    inputs, made = make("lying")
    for _ in range(2):
        simulate(inputs, made, app=lying)
        failed = {(row["arm"], row["user"], row["kind"]) for row in rows(made, "failures")}
        assert failed == {("fedavg", "ben", "UnfitWeights")}
        assert lifecycle.status_of(made) == exit_status.PARTIAL
    answered = [(row["arm"], row["user"]) for row in rows(made, "answers")]
    assert {user for arm, user in answered if arm == "fedavg"} >= {"ana", "eve"}
    assert len(answered) == len(set(answered))


def test_a_second_process_is_refused_with_the_reason(make):
    _, made = make("locked")
    made.path.mkdir(exist_ok=True)
    refused = pytest.raises(RunError, match="another process works on this run")
    with locked(made), refused, locked(made):
        pass
    with locked(made):
        pass


def test_a_run_can_be_found_from_its_first_file_on_and_is_not_begun_twice(tmp_path):
    config = compose(["name=night", f"paths.runs={tmp_path}"])
    made = new_run_folder(config)
    with pytest.raises(RunError, match="no such run"):
        find_run("night", tmp_path)
    made.requested.write_text(to_json(config))
    assert find_run("night", tmp_path).path == made.path.resolve()
    with pytest.raises(RunError, match="go on with it: python -m sim resume run=night"):
        new_run_folder(config)


def test_status_tells_failed_from_partial(tmp_path):
    made = RunFolder(tmp_path)
    assert lifecycle.status_of(made) == exit_status.OK
    jsonlines.append(tmp_path / "failures.jsonl", [{"user": "ana"}])
    assert lifecycle.status_of(made) == exit_status.FAILED
    jsonlines.append(tmp_path / "answers.jsonl", [{"user": "ben"}])
    assert lifecycle.status_of(made) == exit_status.PARTIAL


def test_resume_of_an_unknown_run_says_where_it_looked(tmp_path: Path):
    with pytest.raises(RunError, match="run=nothing: no such run"):
        resume.main(["run=nothing", f"runs={tmp_path}"])


def test_a_device_that_cannot_be_read_leaves_the_others_untouched(make, undisturbed):
    inputs, made = make("broken")
    path = made.devices / folder.folder_name("ben") / "history.json"
    path.write_text(path.read_text()[:40])
    only = replace(inputs, config=replace(inputs.config, methods=("direct_ft", "cdcda")))
    simulate(only, made)
    assert {row["kind"] for row in rows(made, "failures")} == {"DataError"}
    assert "ben" in next(jsonlines.read(path.with_name("errors.jsonl")))["text"]
    assert adapters(made).items() <= adapters(undisturbed).items()
    assert len(adapters(made)) == 2 * 2
