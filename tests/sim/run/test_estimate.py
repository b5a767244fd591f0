"""``--dry-run``: counts from the networks' own shapes, times from a probe of these shapes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from conf.compose import compose
from conf.schema import CausalModelConfig, Config
from lamp import dataset
from models import loading, memory
from models.multi_lora.cohort import ACTIVATION_BYTES
from models.shape import PUBLISHED, Shape
from sim.run import cards, counts, estimate, probe, times
from sim.run.memory_estimate import device_plan, memory_line, memory_lines
from sim.run.probe import Speed
from sim.terminal import PlainConsole
from tests.plugins.small_runs import words

SPEED = Speed(train_s=1e-3, read_s=1e-4, write_s=1e-2, batch=16)
SPEEDS = {"device": SPEED, "cloud": SPEED}


@pytest.fixture(autouse=True)
def short_probe(monkeypatch):
    monkeypatch.setattr(probe, "PROBE_S", 0.01)


def test_sizes_are_those_of_the_checkpoint(qwen2_folder, tmp_path):
    config = compose(words(qwen2_folder, tmp_path))
    model = loading.load_causal(CausalModelConfig(path=str(qwen2_folder), dtype="float32"))
    assert counts.parameters(config, "device") == sum(
        weight.numel() for weight in model.parameters() if weight.ndim == 2
    )


def test_a_checkpoint_that_only_the_hub_has_is_known_by_its_name(tmp_path):
    config = compose(["model=qwen2.5", f"paths.cache={tmp_path}"])
    assert counts.parameters(config, "cloud") == pytest.approx(3.09e9, rel=0.01)
    assert counts.parameters(config, "device") == pytest.approx(0.494e9, rel=0.01)


def made(folder, tmp_path, *more: str) -> estimate.Estimate:
    config = compose(words(folder, tmp_path, *more))
    return estimate.estimate(config, dataset.load(config), SPEEDS)


def test_more_public_records_for_the_base_model_take_longer(qwen2_folder, tmp_path):
    few, many = (
        made(qwen2_folder, tmp_path, f"qlora.base_max_records={number}") for number in (2, 200)
    )
    assert many.seconds > few.seconds


def test_each_model_that_works_in_a_run_has_its_time(qwen2_folder, tmp_path):
    def parts(*more: str) -> set[str]:
        return {part.name for part in made(qwen2_folder, tmp_path, *more).beside}

    base = {"start and stop", "M_base, tuned on public users"}
    cloud, writes = "M_cloud, tuned on public users", "similar pairs, written by the cloud model"
    assert parts("methods=[direct_ft]") == base
    assert parts("methods=[device_zero_shot]") == {"start and stop"}
    assert parts("methods=[cdcda]") == base | {writes, "judging both ways"}
    assert parts("methods=[cloud]") == {"start and stop", cloud}
    assert parts("methods=[rkd_ft]") == base | {cloud, "teacher's logits"}
    scored = parts("methods=[direct_ft]", f"evaluation.bertscore={qwen2_folder}")
    assert scored == base | {"BERTScore"}


def test_a_judge_that_is_built_has_the_size_it_will_have():
    built = times.judge_weights(compose([]))
    assert times.judge_weights(compose(["model=smollm2", "model.nli.path=world"])) == built
    assert times.judge_weights(compose(["model=smollm2", "model.nli.path=elsewhere"])) > 100 * built


def test_what_an_endpoint_writes_takes_no_model_of_ours(qwen2_folder, tmp_path):
    there = ("augmenter.endpoint.base_url=http://127.0.0.1:1/v1", "augmenter.endpoint.model=m")
    config = compose(words(qwen2_folder, tmp_path, "methods=[cdcda]", *there))
    assert not times.needs_cloud(config)
    assert times.needs_cloud(compose(words(qwen2_folder, tmp_path, "methods=[cdcda]")))


@pytest.mark.parametrize(("built", "named"), [(False, True), (True, False)])
def test_only_networks_that_are_not_built_yet_take_time_to_build(monkeypatch, built, named):
    monkeypatch.setattr(times, "is_built", lambda *_: built)
    config = compose(["model=miniature", "users=2", "world.population=300"])
    found = times.parts(config, dataset.load(config), 4, 2, SPEEDS)
    assert any("miniature models" in part.name for part in found) == named


def test_pretrained_models_are_not_said_to_be_built(qwen2_folder, tmp_path):
    found = made(qwen2_folder, tmp_path, "methods=[cdcda]")
    assert not any("miniature" in part.name for part in found.beside)


def test_the_probe_measures_speeds_and_leaves_the_threads_as_they_were(qwen2_folder, tmp_path):
    before = torch.get_num_threads()
    config = compose(words(qwen2_folder, tmp_path, "methods=[cdcda]"))
    found = estimate.measured(config, dataset.load(config), cloud=True)
    assert set(found) == {"device", "cloud"}
    for speed in found.values():
        assert 0 < speed.read_s < 1
        assert 0 < speed.train_s < 1
        assert 0 < speed.write_s < 1
    assert torch.get_num_threads() == before


def test_a_batch_writes_its_prompts_at_once():
    one, full, over = (SPEED.answering_s(prompts, 0, 10) for prompts in (1, 16, 17))
    assert (one, full, over) == pytest.approx((0.1, 0.1, 0.2))
    assert SPEED.answering_s(3, 100, 0) == pytest.approx(0.03)


def test_a_networks_cost_follows_from_two_of_its_blocks():
    shape = Shape(
        layers=24, width=896, feed_forward=4864, heads=14, kv_heads=2, head_width=64,
        vocabulary=151_936,
    )  # fmt: skip
    trained, written = probe._products(shape, shape.layers)
    assert written == shape.parameters  # each weight once per token
    two = probe._products(shape, 2)
    assert 3 < trained / two[0] < 12
    assert written / two[1] == pytest.approx(shape.parameters / replace(shape, layers=2).parameters)


@pytest.fixture(scope="module")
def planned_words(qwen2_folder, tmp_path_factory):
    return words(qwen2_folder, tmp_path_factory.mktemp("planned"))


def test_a_device_process_is_planned_as_its_cohort_trains(planned_words, qwen2_folder):
    shape = memory.shape_of_network(loading.config_of(str(qwen2_folder)))
    one, four = (
        device_plan(compose([*planned_words, f"qlora.cohort={n}"]), shape, 80.0) for n in (1, 4)
    )
    assert one.weights == four.weights
    assert four.optimizer == 4 * one.optimizer
    assert four.activations > one.activations


def test_activations_stay_below_the_engines_bound_however_large_the_batch(planned_words):
    large = Shape(
        layers=36, width=2048, feed_forward=11008, heads=16, kv_heads=2, head_width=128,
        vocabulary=151_936,
    )  # fmt: skip
    config = compose([*planned_words, "qlora.batch_size=256"])
    assert device_plan(config, large, 60.0).activations <= 1.01 * ACTIVATION_BYTES


def test_what_does_not_fit_a_card_is_said(planned_words):
    line = memory_line("a model", memory.Plan(weights=20 << 30, cache=8 << 30))
    assert line == ("memory of a model: 28.00 GiB (weights 20.00, cache 8.00); does not fit 24 GiB")
    assert "unknown until" in memory_line("a model", None)


def test_what_does_not_fit_this_machine_is_said():
    plan = memory.Plan(weights=6 << 30)
    assert "NOT FIT" not in memory_line("a model", plan, here=8 << 30)
    assert "does NOT FIT the 5.0 GiB here" in memory_line("a model", plan, here=5 << 30)
    assert "2 of them do NOT FIT the 8.0 GiB" in memory_line("a model", plan, 8 << 30, processes=2)


def test_every_process_has_its_memory(planned_words, qwen2_folder):
    shape = memory.shape_of_network(loading.config_of(str(qwen2_folder)))
    config = compose([*planned_words, "methods=[cdcda,cloud]"])
    lines = memory_lines(config, dataset.load(config), shape, None, processes=2)
    assert [line.partition(":")[0].removeprefix("memory of ") for line in lines] == [
        "a device process that trains",
        "M_base while it is tuned",
        "M_cloud while it is tuned",
        "the cloud model that writes",
        "the judge, beside it",
    ]
    assert sum("unknown until" in line for line in lines) == 2


QWEN = PUBLISHED["Qwen/Qwen2.5-0.5B-Instruct"]


def test_the_cards_speeds_are_the_measured_ones_where_they_were_measured(monkeypatch):
    """benchmarks/RESULTS.md, gpu_adaptation: tokens a second of 1, 8 and 15 users on an H200."""
    monkeypatch.setitem(cards.BANDWIDTHS, 141, cards.MEASURED_BANDWIDTH)
    for users, measured in ((1, 5_882), (8, 21_090), (15, 27_827)):
        speed = cards._speed(QWEN, 141, 2, users * 16 * 96, prompts=1)
        assert 1 / speed.train_s == pytest.approx(measured, rel=0.12)
    assert 1 / speed.write_s == pytest.approx(54.8, rel=0.12)  # one prompt at a time


@pytest.fixture(scope="module")
def few_users():
    return dataset.load(compose(["model=qwen2.5", "world=small", "users=3"]))


def for_gpus(*more: str) -> Config:
    return compose(["model=qwen2.5", "world=small", "users=3", "resources=gpu", *more])


def test_a_run_has_its_hours_and_its_memory_on_each_card(few_users):
    small, large = estimate.card_hours(for_gpus("methods=[direct_ft]"), few_users)
    assert (small.gib, large.gib) == (24, 80)
    assert small.hours > large.hours > 0
    assert small.largest is not None
    assert small.largest.bytes < 24 << 30
    assert not small.refused


def test_what_a_card_does_not_hold_is_named(few_users):
    config = for_gpus("augmenter.batch_size=4096", "methods=[cdcda]")
    small, large = estimate.card_hours(config, few_users)
    (refused,) = small.refused
    assert refused.what == "the cloud model that writes"
    assert "does NOT FIT: the cloud model that writes" in cards.line(small)
    whole = cards.total([small, small])
    assert whole.hours == pytest.approx(2 * small.hours)
    assert whole.refused == small.refused
    assert large.hours < small.hours


def test_a_run_for_gpus_is_estimated_where_none_is(few_users, monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    estimate.print_estimate(for_gpus("methods=[direct_ft]"), few_users, PlainConsole())
    told = " ".join(capsys.readouterr().out.split())
    assert "as on GPUs of 24 GiB, none is here" in told
    assert "one GPU of 24 GiB: about" in told
    assert "one GPU of 80 GiB: about" in told


def test_the_miniatures_need_no_card(few_users):
    assert estimate.card_hours(compose(["model=miniature", "users=3"]), few_users) == []
