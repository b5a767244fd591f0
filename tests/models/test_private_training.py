"""DP-SGD: clipping by hand, the accountant's numbers, noise from the seed alone."""

from __future__ import annotations

import math

import pytest
import torch

from conf.schema import QLoraConfig
from models import loading, lora, private_training
from models.batch_gradient import BatchGradient
from models.chat import Encoded
from models.private_training import (
    AccountedTraining,
    Guarantee,
    SeededDraws,
    SystemDraws,
    clipping_factor,
    composed_epsilon,
    epsilon_of,
    noise_multiplier,
    train_privately,
)
from models.training import Schedule

QLORA = QLoraConfig(compute_dtype="float32", rank=2, dropout=0.0)
LOOSE = Guarantee(epsilon=8.0, delta=1e-3, clip=10.0)
STRICT = Guarantee(epsilon=0.5, delta=1e-3, clip=1.0)


def schedule(steps: int = 8, batch_size: int = 4, rate: float = 0.05) -> Schedule:
    return Schedule(
        steps=steps,
        batch_size=batch_size,
        learning_rate=rate,
        warmup=0.0,
        clip=1.0,
        weight_decay=0.0,
    )


RECORDS = [[Encoded([5, 6, 7, 8], [-100, 6, 7, 8])] * (1 + number % 2) for number in range(8)]


@pytest.fixture(scope="module")
def model(qwen2_folder):
    return lora.attach(loading.load_device_base(str(qwen2_folder), QLORA, "cpu"), QLORA, seed=0)


def trained(model, guarantee: Guarantee, seed: int = 3, **settings):
    lora.reset(model, 0)
    report = train_privately(model, 0, RECORDS, schedule(**settings), guarantee, SeededDraws(seed))
    return report, {name: w.detach().clone() for name, w in lora.lora_parameters(model).items()}


def test_a_long_gradient_is_cut_to_the_norm_and_a_short_one_stays():
    gradient = [torch.tensor([3.0]), torch.tensor([0.0, 4.0])]  # norm 5
    assert clipping_factor(gradient, 1.0) == pytest.approx(0.2)
    assert clipping_factor(gradient, 10.0) == 1.0
    assert clipping_factor([torch.zeros(3)], 1.0) == 1.0


@pytest.mark.parametrize("epsilon", [0.5, 2.0, 8.0])
def test_the_noise_spends_at_most_the_epsilon_and_nearly_all_of_it(epsilon):
    sigma = noise_multiplier(Guarantee(epsilon, 1e-3, 1.0), 0.2, 24)
    assert 0.9 * epsilon < epsilon_of(sigma, 1e-3, 0.2, 24) <= epsilon


def test_less_epsilon_and_more_steps_need_more_noise():
    few, many = (noise_multiplier(STRICT, 0.2, steps) for steps in (8, 80))
    assert few < many
    assert noise_multiplier(LOOSE, 0.2, 8) < few


def test_without_noise_the_loss_falls(model, monkeypatch):
    monkeypatch.setattr(private_training, "noise_multiplier", lambda *_: 0.0)
    report, _ = trained(model, LOOSE, steps=12)
    losses = [loss for loss in report.losses if loss]
    assert losses[-1] < losses[0] - 1
    assert report.steps == 12


def test_the_same_seed_gives_the_same_adapter_and_another_another(model):
    (_, first), (_, again), (_, other) = (trained(model, STRICT, seed) for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_one_record_moves_the_sum_of_gradients_by_at_most_the_clip(model):
    from models.private_training import _clipped_sum

    lora.reset(model, 0)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    clip, gradient = 1e-3, BatchGradient(model, weights, 0)
    sums = [_clipped_sum(gradient, weights, RECORDS[:number], clip)[0] for number in (3, 4)]
    moved = math.sqrt(sum(float((a - b).norm()) ** 2 for a, b in zip(*sums, strict=True)))
    assert 0.99 * clip < moved <= clip * 1.000001


def test_no_records_train_nothing(model):
    assert train_privately(model, 0, [], schedule(), STRICT, SystemDraws()).steps == 0


def test_the_systems_draws_are_what_they_say_and_never_the_same():
    draws = SystemDraws()
    uniform, normal = draws.uniform(100_000), draws.normal(torch.Size((317, 317)))
    assert 0 <= float(uniform.min()) < float(uniform.max()) < 1
    assert float(uniform.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(normal.mean()) == pytest.approx(0.0, abs=0.02)
    assert float(normal.std()) == pytest.approx(1.0, abs=0.02)
    assert float((normal.abs() < 1.96).double().mean()) == pytest.approx(0.95, abs=0.01)
    assert not torch.equal(draws.uniform(4), draws.uniform(4))


def test_seeds_that_agree_in_their_low_bits_draw_apart():
    one, other = SeededDraws(7), SeededDraws(7 + (1 << 40))  # the same to torch's own generator
    assert not torch.equal(one.normal(torch.Size((8,))), other.normal(torch.Size((8,))))


def test_two_trainings_lose_more_than_one():
    sigma = noise_multiplier(LOOSE, 0.2, 24)
    once = composed_epsilon([AccountedTraining(sigma, 0.2, 24)], 1e-3)
    twice = composed_epsilon([AccountedTraining(sigma, 0.2, 24)] * 2, 1e-3)
    assert once <= 8.0 < twice < 16.0
