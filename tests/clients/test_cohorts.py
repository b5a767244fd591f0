"""What one device of a cohort leaves for the others, and what happens when it cannot."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from clients import cohorts, folder
from clients.adapters import fingerprint
from clients.base import Base
from clients.folder import Policy
from clients.handlers import Place
from conf.compose import compose
from conf.errors import ModelError, ProtocolError, RunError
from lamp.records import Pair, Query, UserHistory
from models import loading, lora
from models.answering import answer_queries
from models.multi_lora import cohort as together
from protocol.messages import AnswerRequest, CollectRequest, QueueRequest
from protocol.recipe import Recipe, recipe_to_json
from protocol.settings import settings_of, settings_to_json

USERS = ("ana", "ben", "eve")
ARM = "cdcda@0.5"


@pytest.fixture(scope="module")
def settings(qwen2_folder):
    return settings_of(
        compose(
            [
                "task=lamp_4",
                "task.max_new_tokens=3",
                "qlora.compute_dtype=float32",
                "qlora.epochs=1",
                "qlora.cohort=3",
            ]
        )
    )


@pytest.fixture(scope="module")
def base(qwen2_folder, settings):
    model = loading.load_device_base(str(qwen2_folder), settings.qlora, "cpu")
    return Base(
        lora.attach(model, settings.qlora, 0),
        loading.load_tokenizer(str(qwen2_folder)),
        qwen2_folder,
    )


@pytest.fixture
def devices(tmp_path):
    def history(user):
        pairs = tuple(Pair(f"{user}{n}", f"{user} text {n}", f"title {n}") for n in range(3))
        question = "Generate a headline for the following article: a text"
        return UserHistory(user, (), pairs, (Query(f"{user}-q", question, "a title"),))

    for user in USERS:
        folder.create(tmp_path, history(user), Policy(1.0), user.encode() * 10 + b"xy")
    return [folder.read(path) for path in folder.device_folders(tmp_path)]


def cohort_folders(devices):
    return tuple(device.folder for device in devices)


def queue(devices, settings, **changes):
    request = QueueRequest(
        arm=ARM,
        base_id="b",
        settings=settings_to_json(settings),
        seed=0,
        kept=(Pair("k", "a kept text", "a kept title"),),
        extra_records=0,
    )
    for device in devices:
        cohorts.queue(device, cohort_folders(devices), replace(request, **changes))


def collect(devices, base, settings, which):
    request = CollectRequest(arm=ARM, base_id="b", settings=settings_to_json(settings))
    return cohorts.collect(devices[which], cohort_folders(devices), base, request, settings)


def answer(devices, base, settings, which, **changes):
    request = AnswerRequest(arm=ARM, base_id="b", settings="{}", adapted=True)
    return cohorts.answer(
        devices[which], cohort_folders(devices), base, replace(request, **changes), settings
    )


@pytest.fixture
def counted(monkeypatch):
    """How many users each training took in."""
    sizes = []

    def train(model, jobs, *others):
        sizes.append(len(jobs))
        return together.train_shrinking(model, jobs, *others)

    def alone(model, pad_id, job, **others):
        sizes.append(1)
        return together.train_one(model, pad_id, job, **others)

    monkeypatch.setattr(cohorts, "train_shrinking", train)
    monkeypatch.setattr(cohorts.adaptation, "train_one", alone)
    return sizes


def test_who_comes_first_trains_for_all_and_the_others_find_their_own(
    devices, base, settings, counted
):
    queue(devices, settings)
    replies = [collect(devices, base, settings, which) for which in (1, 0, 2)]
    assert counted == [3]
    assert [reply.user_id for reply in replies] == ["ben", "ana", "eve"]
    assert all((reply.records, reply.synthetic) == (3, 1) for reply in replies)
    assert len({fingerprint(device, ARM) for device in devices}) == 3


def test_a_reply_that_got_lost_is_given_again_and_nothing_is_trained_twice(
    devices, base, settings, counted
):
    queue(devices, settings)
    first = collect(devices, base, settings, 0)
    weights = fingerprint(devices[0], ARM)
    assert collect(devices, base, settings, 0).losses == first.losses
    queue(devices, settings)  # a server that was started again knows nothing of the first time
    assert collect(devices, base, settings, 0).losses == first.losses
    assert collect(devices, base, settings, 2).user_id == "eve"
    assert fingerprint(devices[0], ARM) == weights
    assert counted == [3]


def test_after_a_process_died_at_work_everyone_works_alone(devices, base, settings, counted):
    queue(devices, settings)
    (devices[0].folder / "jobs" / f"{ARM}.tried").touch()
    replies = [collect(devices, base, settings, which) for which in range(3)]
    assert counted == [1, 1, 1]
    assert [reply.user_id for reply in replies] == list(USERS)
    queue(devices, settings, extra_records=4)  # the next job is tried together again
    collect(devices, base, settings, 0)
    assert counted == [1, 1, 1, 3]


def test_a_fault_in_the_common_training_lets_everyone_work_alone(
    devices, base, settings, monkeypatch
):
    def train(*_):
        raise RuntimeError("a fault")

    monkeypatch.setattr(cohorts, "train_shrinking", train)
    queue(devices, settings)
    assert [collect(devices, base, settings, n).user_id for n in range(3)] == list(USERS)


def test_a_cohort_without_memory_goes_on_in_smaller_parts_and_counts_them(
    devices, base, settings, counted
):
    def refuse(_module, inputs):
        if inputs[0].shape[1] > 100:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    queue(devices, settings)
    first = base.model.get_base_model().model.layers[0].input_layernorm
    hook = first.register_forward_pre_hook(refuse)
    replies = [collect(devices, base, settings, which) for which in range(3)]
    hook.remove()
    assert counted == [3]  # nobody was left to work alone
    assert all(reply.reductions > 0 for reply in replies)
    (mark,) = [each.folder / "jobs" / f"{ARM}.tried" for each in devices[:1]]
    assert not mark.exists()
    for device in devices:  # the same adapters as with enough memory, up to rounding
        jobs_folder = device.folder / "jobs"
        (jobs_folder / f"{ARM}.reply.json").unlink()
    plain = [collect(devices, base, settings, which) for which in range(3)]
    assert [reply.reductions for reply in plain] == [0, 0, 0]
    for one, other in zip(replies, plain, strict=True):
        assert one.losses == pytest.approx(other.losses, abs=0.1)  # other masks of dropout


def test_a_device_that_cannot_be_read_costs_the_others_nothing(devices, base, settings):
    queue(devices, settings)
    (devices[1].folder / "history.json").write_text("{broken")
    assert collect(devices, base, settings, 0).user_id == "ana"
    assert collect(devices, base, settings, 2).user_id == "eve"
    assert fingerprint(devices[1], ARM) == ""


def test_a_device_without_room_is_the_only_one_that_fails(devices, base, settings):
    (devices[1].folder / "limits.json").write_text('{"memory_bytes": 1}')
    devices[1] = folder.read(devices[1].folder)
    queue(devices, settings)
    assert [collect(devices, base, settings, which).user_id for which in (0, 2)] == ["ana", "eve"]
    for ask in (collect, answer):
        with pytest.raises(ModelError, match="user ben: does not fit: memory"):
            ask(devices, base, settings, 1)


def test_the_reason_of_a_failure_reaches_its_device_alone(devices, base, settings, monkeypatch):
    finish = cohorts.adaptation.finish

    def fail(device, *others):
        if device.user_id == "ben":
            raise ModelError("training: expected a finite loss, got nan")
        return finish(device, *others)

    monkeypatch.setattr(cohorts.adaptation, "finish", fail)
    queue(devices, settings)
    assert collect(devices, base, settings, 0).user_id == "ana"
    with pytest.raises(ModelError, match="finite loss"):
        collect(devices, base, settings, 1)
    assert collect(devices, base, settings, 2).user_id == "eve"


def test_answers_are_given_together_and_never_from_an_older_adapter(
    devices, base, settings, monkeypatch
):
    queue(devices, settings)
    for which in range(3):
        collect(devices, base, settings, which)
    calls = []

    def answers(model, tokenizer, asked, states, **settings):
        calls.append(len(states))
        return answer_queries(model, tokenizer, asked, states, **settings)

    monkeypatch.setattr(cohorts.answering, "answer_queries", answers)
    replies = [answer(devices, base, settings, which) for which in (0, 1)]
    assert ([reply.user_id for reply in replies], calls) == (["ana", "ben"], [3])
    queue(devices, settings, seed=1)  # eve's answer still lies there, made with the old adapter
    for which in range(3):
        collect(devices, base, settings, which)
    assert answer(devices, base, settings, 2).query_ids == ("eve-q",)
    assert calls == [3, 3]


def test_the_base_alone_answers_for_the_whole_cohort(devices, base, settings):
    replies = [answer(devices, base, settings, n, adapted=False) for n in range(3)]
    assert [reply.query_ids for reply in replies] == [("ana-q",), ("ben-q",), ("eve-q",)]


def test_what_was_not_queued_cannot_be_collected(devices, base, settings):
    with pytest.raises(RunError, match="nothing is queued"):
        collect(devices, base, settings, 0)


def test_a_name_that_is_no_file_name_is_refused(devices, settings):
    with pytest.raises(ProtocolError, match="plain name"):
        queue(devices, settings, adapter="../x")


@pytest.mark.parametrize(("users", "size"), [(20, 5), (7, 3), (100, 8), (3, 1), (2, 8)])
def test_neighbours_are_of_different_cohorts(settings, users, size, tmp_path):
    """Flower asks nodes in their order: the first ones must not wait for each other."""
    folders = tuple(tmp_path / f"{number:03}" for number in range(users))
    asked = replace(settings, qlora=replace(settings.qlora, cohort=size))
    cohorts = [Place(folders, n, tmp_path, real=False).cohort_folders(asked) for n in range(users)]
    different = list(dict.fromkeys(cohorts))
    assert cohorts[: len(different)] == different
    assert all(len(cohort) <= size for cohort in different)
    assert sorted(path for cohort in different for path in cohort) == list(folders)
    assert all(folders[n] in cohort for n, cohort in enumerate(cohorts))


def test_a_real_device_is_a_cohort_of_itself(settings, tmp_path):
    own = (tmp_path,)
    asked = replace(settings, qlora=replace(settings.qlora, cohort=8))
    assert Place(own, 0, tmp_path, real=True).cohort_folders(asked) == own


def test_a_queued_request_keeps_the_public_records_that_it_brings(devices, base, settings):
    near = tuple(Pair(f"p{n}", f"ben text {n}", f"title {n}") for n in range(20))
    recipe = recipe_to_json(Recipe(local="neighbours", k=2))
    queue(devices, settings, kept=(), recipe=recipe, public=near)
    assert [collect(devices, base, settings, which).synthetic for which in range(3)] == [6, 6, 6]
