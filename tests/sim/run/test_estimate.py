"""``--dry-run``: counts from the networks' own shapes, times from a product of that shape."""

from __future__ import annotations

import pytest

from conf.compose import compose
from conf.schema import CausalModelConfig
from lamp import dataset
from models import loading
from sim.run import estimate
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
