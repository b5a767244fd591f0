"""``--dry-run``: counts from the networks' own shapes, times from a product of that shape."""

from __future__ import annotations

import pytest

from conf.compose import compose
from conf.schema import CausalModelConfig
from lamp import dataset
from models import loading, memory
from models.multi_lora.cohort import ACTIVATION_BYTES
from models.shape import Shape
from sim.run import estimate
from sim.run.memory_estimate import device_plan, memory_line
from tests.plugins.small_runs import words


@pytest.fixture(autouse=True)
def short_probe(monkeypatch):
    monkeypatch.setattr(estimate, "PROBE_S", 0.01)


def test_sizes_are_those_of_the_checkpoint(qwen2_folder, tmp_path):
    config = compose(words(qwen2_folder, tmp_path))
    model = loading.load_causal(CausalModelConfig(path=str(qwen2_folder), dtype="float32"))
    assert estimate.parameters(config, "device") == sum(
        weight.numel() for weight in model.parameters() if weight.ndim == 2
    )


def test_a_checkpoint_that_only_the_hub_has_is_guessed_by_its_name(tmp_path):
    config = compose(["model=qwen2.5", f"paths.cache={tmp_path}"])
    assert estimate.parameters(config, "cloud") == 3.09e9


def test_more_public_records_for_the_base_model_take_longer(qwen2_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(estimate, "product_rate", lambda config: 1e9)

    def seconds(*more: str) -> float:
        config = compose(words(qwen2_folder, tmp_path, *more))
        return estimate.estimate(config, dataset.load(config)).seconds

    assert seconds("qlora.base_max_records=200") > seconds("qlora.base_max_records=2")


def test_the_probe_measures_a_rate_and_leaves_the_threads_as_they_were(qwen2_folder, tmp_path):
    import torch

    before = torch.get_num_threads()
    assert estimate.product_rate(compose(words(qwen2_folder, tmp_path))) > 1e6
    assert torch.get_num_threads() == before


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
