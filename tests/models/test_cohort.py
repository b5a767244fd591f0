from __future__ import annotations

import math
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from peft import PeftModel

from conf.errors import ModelError
from conf.schema import QLoraConfig
from models import lora
from models.chat import encode_example
from models.distillation import taught, teacher_logits
from models.loading import load_device_base, load_tokenizer
from models.multi_lora.cohort import (
    CohortJob,
    fitting_size,
    token_bytes,
    train_cohort,
    train_one,
)
from models.multi_lora.stacked import NotStackableError
from models.training import Schedule, train

SCHEDULE = Schedule(
    steps=7, batch_size=4, learning_rate=1e-3, warmup=0.2, clip=0.5, weight_decay=0.01
)
TEXT = "a fine film council votes tonight on it review quiet bridge x y z"
PLAIN = QLoraConfig(compute_dtype="float32", dropout=0.0)
DROPPED = QLoraConfig(compute_dtype="float32", dropout=0.3)
BF16 = QLoraConfig(compute_dtype="bfloat16", dropout=0.3)
NF4 = replace(BF16, dequantise_once=False)


@pytest.fixture(scope="module")
def slot(qwen2_folder):
    """The model of a configuration; one per configuration."""
    models: dict[QLoraConfig, PeftModel] = {}

    def of(qlora: QLoraConfig) -> PeftModel:
        if qlora not in models:
            models[qlora] = lora.attach(load_device_base(qwen2_folder, qlora), qlora, seed=0)
        return models[qlora]

    return of


@pytest.fixture(scope="module")
def jobs(qwen2_folder) -> list[CohortJob]:
    """Four users: histories of 1 to 11 records, of 2 to 13 words, 3 to 7 steps."""
    tokenizer = load_tokenizer(qwen2_folder)

    words = TEXT.split()

    def examples(user: int, n: int):
        texts = [" ".join(words[(i * 3 + user) % 5 : 4 + 7 * i % 11]) for i in range(n)]
        return [encode_example(tokenizer, f"Title: {t}", t[::-1] + "!", None, 256) for t in texts]

    return [
        CohortJob(
            examples=examples(user, n),
            schedule=replace(SCHEDULE, steps=steps, learning_rate=rate, clip=clip),
            adapter_seed=10 + user,
            batch_seed=20 + user,
        )
        for user, (n, steps, rate, clip) in enumerate(
            [(11, 7, 1e-3, 0.5), (1, 3, 1e-3, 0.5), (6, 5, 1e-3, 0.05), (9, 7, 5e-4, math.inf)]
        )
    ]


def largest_difference(one, two) -> float:
    assert one.keys() == two.keys()
    return max((one[name] - two[name]).abs().max().item() for name in one)


def alone(model, job):
    """Training through PEFT's own layers, autograd and torch's AdamW."""
    lora.reset(model, job.adapter_seed)
    report = train(model, 0, job.examples, job.schedule, job.batch_seed)
    return report, {n: w.detach().clone() for n, w in lora.lora_parameters(model).items()}


def test_cohort_equals_training_alone_through_peft(slot, jobs):
    results = train_cohort(slot(PLAIN), jobs)
    for job, result in zip(jobs, results, strict=True):
        report, weights = alone(slot(PLAIN), job)
        assert largest_difference(result.state, weights) < 1e-5
        assert result.report.losses == pytest.approx(report.losses, abs=1e-5)
        assert (result.report.steps, result.report.tokens) == (report.steps, report.tokens)
        moved = largest_difference(weights, lora.fresh(slot(PLAIN), job.adapter_seed))
        assert moved > 1e-3  # far more than the tolerance


@pytest.mark.parametrize(("qlora", "tolerance"), [(DROPPED, 1e-5), (BF16, 5e-3)])
def test_who_else_is_in_the_cohort_changes_nothing_but_rounding(slot, jobs, qlora, tolerance):
    together = train_cohort(slot(qlora), jobs)
    reordered = train_cohort(slot(qlora), jobs[::-1])[::-1]
    for job, one, other in zip(jobs, together, reordered, strict=True):
        (single,) = train_cohort(slot(qlora), [job])
        assert largest_difference(one.state, single.state) < tolerance
        assert largest_difference(other.state, single.state) < tolerance
        assert one.report.losses == pytest.approx(single.report.losses, abs=10 * tolerance)


def test_bfloat16_stays_near_training_alone_through_peft(slot, jobs):
    qlora = replace(BF16, dropout=0.0)
    results = train_cohort(slot(qlora), jobs)
    for job, result in zip(jobs, results, strict=True):
        report, weights = alone(slot(qlora), job)
        assert largest_difference(result.state, weights) < 8e-3
        assert result.report.losses == pytest.approx(report.losses, abs=0.05)


def test_dropout_matters_and_costs_no_bias(slot, jobs):
    dropped, plain = (train_cohort(slot(q), jobs[:1])[0].report.losses for q in (DROPPED, PLAIN))
    assert dropped[0] == pytest.approx(plain[0])  # B is still zero
    assert dropped[3:] != pytest.approx(plain[3:], rel=1e-6)
    assert dropped == pytest.approx(plain, rel=0.05)


def test_same_seeds_give_the_same_bytes_whatever_the_global_generator(slot, jobs):
    before = torch.get_rng_state()
    first = train_cohort(slot(BF16), jobs[:2])
    assert torch.equal(torch.get_rng_state(), before)
    with torch.random.fork_rng():
        torch.manual_seed(99)
        second = train_cohort(slot(BF16), jobs[:2])
    for one, two in zip(first, second, strict=True):
        assert one.report.losses == two.report.losses
        assert all(torch.equal(one.state[name], two.state[name]) for name in one.state)


def test_nf4_and_its_twin_train_the_same_adapters(slot, jobs):
    for one, two in zip(
        train_cohort(slot(NF4), jobs[:2]), train_cohort(slot(BF16), jobs[:2]), strict=True
    ):
        assert all(torch.equal(one.state[name], two.state[name]) for name in one.state)


def test_without_steps_the_result_is_the_fresh_adapter(slot, jobs):
    job = replace(jobs[0], schedule=replace(SCHEDULE, steps=0), examples=[])
    (result,) = train_cohort(slot(PLAIN), [job])
    lora.reset(slot(PLAIN), job.adapter_seed)
    for name, weight in lora.lora_parameters(slot(PLAIN)).items():
        assert torch.equal(result.state[name], weight)
    assert (result.report.losses, result.report.steps, result.error) == ((), 0, None)


def test_training_can_start_from_given_weights(slot, jobs):
    (first,) = train_cohort(slot(PLAIN), jobs[:1])
    seed_does_not_matter = replace(jobs[0], start=first.state, adapter_seed=77)
    (second,) = train_cohort(slot(PLAIN), [seed_does_not_matter])
    assert second.report.losses[0] < first.report.losses[0]
    again = replace(seed_does_not_matter, schedule=replace(SCHEDULE, steps=0))
    (untouched,) = train_cohort(slot(PLAIN), [again])
    assert largest_difference(untouched.state, first.state) == 0


def test_on_step_counts_the_steps_of_all_users(slot, jobs):
    seen = []
    train_cohort(slot(PLAIN), jobs[:2], on_step=lambda done, total: seen.append((done, total)))
    assert seen == [(n, 10) for n in (2, 4, 6, 7, 8, 9, 10)]


def structure(model):
    hooks = [
        (len(module._forward_hooks), len(module._forward_pre_hooks)) for module in model.modules()
    ]
    return [(name, id(module)) for name, module in model.named_modules()], hooks


@pytest.mark.parametrize("fails", [False, True])
def test_model_and_slot_are_left_as_they_were(slot, jobs, fails):
    model = slot(BF16)
    lora.reset(model, 3)
    ids = torch.arange(30).view(1, 30)
    with torch.no_grad():
        logits = model(input_ids=ids).logits
    weights = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    before = structure(model), model.config._attn_implementation

    def on_step(done: int, total: int) -> None:
        if fails:
            raise KeyboardInterrupt

    if fails:
        with pytest.raises(KeyboardInterrupt):
            train_cohort(model, jobs[:2], on_step)
    else:
        train_cohort(model, jobs[:2], on_step)
    assert (structure(model), model.config._attn_implementation) == before
    assert not model.training
    for name, weight in model.named_parameters():
        assert torch.equal(weight, weights[name])
        assert weight.grad is None
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, logits)


def test_one_users_failure_is_that_users_alone(slot, jobs):
    broken = replace(jobs[1], schedule=replace(jobs[1].schedule, learning_rate=1e30, clip=math.inf))
    empty = replace(jobs[1], examples=[])
    good, bad, none, last = train_cohort(slot(DROPPED), [jobs[0], broken, empty, jobs[2]])
    assert isinstance(bad.error, ModelError)
    assert "lower the learning rate" in str(bad.error)
    assert "expected examples for 3 steps, got none" in str(none.error)
    for job, result in ((jobs[0], good), (jobs[2], last)):
        assert result.error is None
        (single,) = train_cohort(slot(DROPPED), [job])
        assert largest_difference(result.state, single.state) < 1e-5


def test_an_update_that_breaks_the_last_step_is_told_for_that_user(slot, jobs):
    last = replace(jobs[1].schedule, steps=1, learning_rate=math.inf)
    good, broken = train_cohort(slot(PLAIN), [jobs[0], replace(jobs[1], schedule=last)])
    assert good.error is None
    assert isinstance(broken.error, ModelError)
    assert "finite weights after 1 steps" in str(broken.error)
    with pytest.raises(ModelError, match="finite weights"):
        alone(slot(PLAIN), replace(jobs[1], schedule=last))


def test_shares_of_the_wall_time_add_up(slot, jobs):
    results = train_cohort(slot(PLAIN), jobs)
    seconds = [result.report.seconds for result in results]
    tokens = [result.report.tokens for result in results]
    assert seconds[0] / seconds[1] == pytest.approx(tokens[0] / tokens[1])
    assert all(result.report.peak_memory_bytes > 1 << 20 for result in results)


def test_adapter_folder_is_the_one_of_the_slot(slot, jobs, tmp_path, qwen2_folder):
    model = slot(BF16)
    (result,) = train_cohort(model, jobs[:1])
    lora.save_state(model, result.state, tmp_path / "state")
    lora.fill(model, result.state, "of a test")
    lora.save(model, tmp_path / "slot")
    for file in (tmp_path / "slot").iterdir():
        assert file.read_bytes() == (tmp_path / "state" / file.name).read_bytes()
    plain = PeftModel.from_pretrained(load_device_base(qwen2_folder, BF16), tmp_path / "state")
    ids = torch.arange(30).view(1, 30)
    with torch.no_grad():
        assert torch.equal(plain.eval()(input_ids=ids).logits, model(input_ids=ids).logits)


def strong_adapter(model, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {name: weight.shape for name, weight in lora.lora_parameters(model).items()}
    return {n: torch.randn(shape, generator=generator) * 0.15 for n, shape in shapes.items()}


@pytest.mark.parametrize(
    ("free_gib", "share", "users"), [(80, 1.0, 40), (60, 1.0, 30), (80, 0.25, 10), (8, 0.25, 4)]
)
def test_a_gpu_holds_half_of_what_is_free_or_of_its_share(monkeypatch, free_gib, share, users):
    """At 8 KiB a token 128 Ki tokens take 1 GiB."""
    model = SimpleNamespace(device=torch.device("cuda"))
    monkeypatch.setattr("models.multi_lora.cohort.token_bytes", lambda _: 8 << 10)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free_gib << 30, 80 << 30))
    assert fitting_size(model, 1 << 17, share) == users


def test_a_processor_holds_any_number_of_users(slot):
    assert fitting_size(slot(PLAIN), 1 << 40) == sys.maxsize


def test_micro_batches_leave_the_gradients_as_they_are(slot, jobs):
    model = slot(PLAIN)
    whole = train_cohort(model, jobs)
    parted = train_cohort(model, jobs, activation_bytes=40 * token_bytes(model))
    for one, other in zip(whole, parted, strict=True):
        assert other.report.losses == pytest.approx(one.report.losses, abs=1e-5)
        assert largest_difference(one.state, other.state) < 1e-5


def test_micro_batches_of_one_user_are_the_same_whoever_else_is_there(slot, jobs):
    model = slot(DROPPED)
    budget = 40 * token_bytes(model)
    together = train_cohort(model, jobs, activation_bytes=budget)
    for job, one in zip(jobs, together, strict=True):
        (alone_,) = train_cohort(model, [job], activation_bytes=budget)
        assert largest_difference(one.state, alone_.state) < 1e-5


def test_one_adapter_trained_lies_in_the_slot(slot, jobs):
    model = slot(DROPPED)
    (expected,) = train_cohort(model, [jobs[0]])
    report = train_one(model, 0, jobs[0])
    assert report.losses == expected.report.losses
    assert largest_difference(dict(lora.lora_parameters(model)), expected.state) == 0


@pytest.fixture
def distilling(slot, jobs):
    """Two of the users; the first learns from a teacher on every other example."""
    model = slot(PLAIN)
    lora.fill(model, strong_adapter(model, 5), "of a teacher")
    said = dict(enumerate(teacher_logits(model, jobs[0].examples[:11], 0, 4)))
    examples = taught(jobs[0].examples, {i: said[i] for i in said if i % 2}, 416)
    return [replace(jobs[0], examples=examples, distillation=0.7), jobs[2]]


@pytest.mark.parametrize("tokens", [1 << 20, 40])
def test_a_teacher_is_followed_as_by_training_alone_through_peft(slot, jobs, distilling, tokens):
    model = slot(PLAIN)
    results = train_cohort(model, distilling, activation_bytes=tokens * token_bytes(model))
    for job, result in zip(distilling, results, strict=True):
        lora.reset(model, job.adapter_seed)
        seed, weight = job.batch_seed, job.distillation
        report = train(model, 0, job.examples, job.schedule, seed, distillation=weight)
        assert largest_difference(result.state, dict(lora.lora_parameters(model))) < 1e-5
        assert result.report.losses == pytest.approx(report.losses, abs=1e-5)
    (without,) = train_cohort(model, [jobs[0]])
    assert largest_difference(results[0].state, without.state) > 1e-3


def test_a_model_that_cannot_be_stacked_is_trained_by_the_plain_loop(slot, jobs, monkeypatch):
    def refuse(*_args, **_others):
        raise NotStackableError("no")

    monkeypatch.setattr("models.multi_lora.cohort.train_cohort", refuse)
    model = slot(PLAIN)
    report = train_one(model, 0, jobs[0])
    _, expected = alone(slot(PLAIN), jobs[0])
    assert report.steps == jobs[0].schedule.steps
    assert largest_difference(dict(lora.lora_parameters(model)), expected) == 0
