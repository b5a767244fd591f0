from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from conf.errors import ModelError
from conf.schema import QLoraConfig
from models import lora
from models.batch import collate
from models.chat import IGNORED, Encoded, encode_example
from models.loading import load_device_base, load_tokenizer
from models.losses import batch_loss
from models.training import (
    Schedule,
    batches,
    learning_rates,
    steps_for,
    train,
)

SCHEDULE = Schedule(
    steps=5, batch_size=4, learning_rate=1e-2, warmup=0.1, clip=1.0, weight_decay=0.01
)
FP32 = QLoraConfig(compute_dtype="float32")


@pytest.fixture(scope="module")
def tokenizer(qwen2_folder):
    return load_tokenizer(qwen2_folder)


@pytest.fixture(scope="module")
def examples(tokenizer):
    texts = ["a fine film", "bridge", "the council votes tonight on it", "review", "x y z", "quiet"]
    return [encode_example(tokenizer, text, text[::-1], None, 512) for text in texts]


@pytest.fixture(scope="module")
def model(qwen2_folder):
    return lora.attach(load_device_base(qwen2_folder, FP32), FP32, seed=0)


def fit(model, examples, schedule=SCHEDULE, seed=0, **kwargs):
    lora.reset(model, seed=0)
    report = train(model, 0, examples, schedule, seed, **kwargs)
    return report, {n: w.detach().clone() for n, w in lora.lora_parameters(model).items()}


def mean_loss_by_hand(model, examples: list[Encoded]) -> float:
    """Each example alone, unpadded; mean over all scored tokens."""
    total, scored = 0.0, 0
    for example in examples:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([example.input_ids])).logits[0]
        for position, label in enumerate(example.labels[1:]):
            if label != IGNORED:
                total -= logits[position].log_softmax(-1)[label].item()
                scored += 1
    return total / scored


@pytest.mark.parametrize(
    ("n_records", "batch_size", "epochs", "steps"),
    [(0, 16, 2, 0), (1, 16, 2, 2), (16, 16, 2, 2), (17, 16, 2, 4), (60, 16, 2, 8), (5, 2, 3, 9)],
)
def test_steps_for_counts_short_batches(n_records, batch_size, epochs, steps):
    assert steps_for(n_records, batch_size, epochs) == steps


def test_learning_rate_rises_then_falls_and_never_is_zero():
    schedule = replace(SCHEDULE, steps=10, learning_rate=1.0, warmup=0.2)
    expected = [1 / 3, 2 / 3, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]
    assert learning_rates(schedule) == pytest.approx(expected)


@pytest.mark.parametrize("warmup", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("steps", [0, 1, 2, 7])
def test_learning_rates_fit_every_length(steps, warmup):
    rates = learning_rates(replace(SCHEDULE, steps=steps, warmup=warmup))
    assert len(rates) == steps
    assert all(0 < rate <= SCHEDULE.learning_rate for rate in rates)


def test_every_epoch_is_its_own_permutation_with_a_short_last_batch():
    drawn = list(batches(5, 2, steps=6, seed=1))
    assert [len(batch) for batch in drawn] == [2, 2, 1, 2, 2, 1]
    first, second = (list(itertools.chain(*drawn[at : at + 3])) for at in (0, 3))
    assert sorted(first) == sorted(second) == [0, 1, 2, 3, 4]
    assert first != second


@pytest.mark.parametrize("steps", [0, 1, 4, 7])
def test_steps_need_not_be_whole_epochs(steps):
    drawn = list(batches(5, 2, steps=steps, seed=1))
    assert drawn == list(batches(5, 2, steps=6, seed=1))[:steps] + drawn[6:]
    assert len(drawn) == steps


def test_batches_larger_than_the_data_hold_all_of_it():
    assert [sorted(batch) for batch in batches(3, 16, steps=2, seed=0)] == [[0, 1, 2], [0, 1, 2]]


def test_collate_pads_right_and_shifts_labels():
    rows = [Encoded([5, 6, 7], [IGNORED, 6, 7]), Encoded([8, 9], [IGNORED, 9])]
    batch = collate(rows, pad_id=0)
    assert batch.input_ids.tolist() == [[5, 6, 7], [8, 9, 0]]
    assert batch.attention_mask.tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch.scored.tolist() == [[True, True, False], [True, False, False]]
    assert batch.targets.tolist() == [6, 7, 9]


def test_loss_is_the_mean_over_scored_tokens_whatever_the_padding(model, examples):
    lora.reset(model, seed=0)
    with torch.no_grad():
        loss = batch_loss(model, examples, pad_id=0).total.item()
    assert loss == pytest.approx(mean_loss_by_hand(model, examples), rel=1e-5)


def test_training_lowers_the_loss(model, examples):
    report, _ = fit(model, examples, replace(SCHEDULE, steps=30))
    assert report.losses[-1] < 0.5 * report.losses[0]
    assert mean_loss_by_hand(model, examples) < 0.5 * report.losses[0]


def test_report_counts_steps_and_tokens(model, examples):
    report, _ = fit(model, examples, replace(SCHEDULE, steps=4, batch_size=4))
    per_epoch = sum(len(example.input_ids) for example in examples)
    assert (report.steps, len(report.losses)) == (4, 4)
    assert report.tokens == 2 * per_epoch
    assert report.seconds > 0
    assert report.peak_memory_bytes > 1 << 20


def test_first_loss_is_that_of_the_untouched_base(model, examples):
    report, _ = fit(model, examples, replace(SCHEDULE, steps=1, batch_size=16))
    lora.reset(model, seed=0)
    assert report.losses[0] == pytest.approx(mean_loss_by_hand(model, examples), rel=1e-5)


def test_same_seed_gives_the_same_bytes_and_another_seed_does_not(model, examples):
    one, first = fit(model, examples, seed=3)
    two, second = fit(model, examples, seed=3)
    _, third = fit(model, examples, seed=4)
    assert one.losses == two.losses
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], third[name]) for name in first)


def test_what_was_trained_before_leaves_no_trace(model, examples):
    _, first = fit(model, examples)
    fit(model, examples[:2], replace(SCHEDULE, learning_rate=0.1), seed=9)
    _, again = fit(model, examples)
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_no_global_generator_is_read_or_moved(model, examples):
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    _, first = fit(model, examples)
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert (np.random.get_state()[1] == numpy_before).all()
    with torch.random.fork_rng():
        torch.manual_seed(12345)
        _, again = fit(model, examples)
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_dropout_is_active_while_training_only(qwen2_folder, examples):
    losses = []
    for dropout in (0.0, 0.5):
        qlora = QLoraConfig(compute_dtype="float32", dropout=dropout)
        model = lora.attach(load_device_base(qwen2_folder, qlora), qlora, seed=0)
        losses.append(fit(model, examples)[0].losses)
        assert not model.training
    assert losses[0][0] == pytest.approx(losses[1][0])  # B is still zero
    assert losses[0][2:] != pytest.approx(losses[1][2:])


def test_base_stays_frozen(model, examples):
    frozen = {n: w.detach().clone() for n, w in model.named_parameters() if ".lora_" not in n}
    fit(model, examples)
    for name, weight in model.named_parameters():
        if name in frozen:
            assert torch.equal(weight, frozen[name])
            assert weight.grad is None


@pytest.mark.parametrize("dequantise_once", [False, True])
def test_bfloat16_base_trains_a_float32_adapter(qwen2_folder, examples, dequantise_once):
    qlora = QLoraConfig(compute_dtype="bfloat16", dequantise_once=dequantise_once)
    model = lora.attach(load_device_base(qwen2_folder, qlora), qlora, seed=0)
    report, weights = fit(model, examples, replace(SCHEDULE, steps=12))
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    assert report.losses[-1] < 0.8 * report.losses[0]


def test_nf4_and_its_twin_train_the_same_adapter(qwen2_folder, examples):
    trained = []
    for dequantise_once in (False, True):
        qlora = QLoraConfig(compute_dtype="bfloat16", dequantise_once=dequantise_once)
        model = lora.attach(load_device_base(qwen2_folder, qlora), qlora, seed=0)
        trained.append(fit(model, examples)[1])
    for name, weight in trained[0].items():
        torch.testing.assert_close(trained[1][name], weight, rtol=0, atol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dequantise_once", [False, True])
def test_training_on_a_gpu_lowers_the_loss(qwen2_folder, examples, dequantise_once):
    qlora = QLoraConfig(dequantise_once=dequantise_once)
    model = lora.attach(load_device_base(qwen2_folder, qlora, "cuda:0"), qlora, seed=0)
    report, _ = fit(model, examples, replace(SCHEDULE, steps=30))
    assert report.losses[-1] < 0.5 * report.losses[0]


def test_gradient_clipping_bounds_the_step(model, examples):
    _, free = fit(model, examples, replace(SCHEDULE, steps=1, clip=1e9))
    _, tight = fit(model, examples, replace(SCHEDULE, steps=1, clip=1e-9))
    name = next(name for name in free if ".lora_B." in name)
    assert tight[name].abs().max() < 0.2 * free[name].abs().max()


def test_on_step_sees_every_step(model, examples):
    seen = []
    fit(model, examples, on_step=lambda done, steps: seen.append((done, steps)))
    assert seen == [(step, 5) for step in range(1, 6)]


def test_no_steps_change_nothing(model, examples):
    lora.reset(model, seed=0)
    before = {n: w.detach().clone() for n, w in lora.lora_parameters(model).items()}
    report = train(model, 0, examples, replace(SCHEDULE, steps=0), 0)
    assert (report.losses, report.steps, report.tokens) == ((), 0, 0)
    assert train(model, 0, [], replace(SCHEDULE, steps=0), 0).steps == 0
    assert all(torch.equal(w, before[n]) for n, w in lora.lora_parameters(model).items())


def test_steps_without_examples_are_an_error(model):
    with pytest.raises(ModelError, match="expected examples for 5 steps, got none"):
        train(model, 0, [], SCHEDULE, 0)


def test_divergence_is_an_error_that_names_step_and_rate(model, examples):
    with pytest.raises(ModelError, match=r"got (nan|inf) at step \d+ of 9; lower the learning r"):
        fit(model, examples, replace(SCHEDULE, steps=9, learning_rate=1e30, clip=math.inf))
    lora.reset(model, seed=0)
