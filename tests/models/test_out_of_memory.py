"""Memory that runs out within a step: smaller parts, the same adapters, or a clear end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from peft import PeftModel

from conf.schema import QLoraConfig
from models import lora
from models.batch_gradient import BatchGradient
from models.chat import encode_example
from models.loading import load_device_base, load_tokenizer
from models.multi_lora.cohort import (
    CohortJob,
    token_bytes,
    train_cohort,
    train_one,
    train_shrinking,
)
from models.out_of_memory import DoesNotFitError, is_out_of_memory
from models.private_training import Guarantee, SeededDraws, train_privately
from models.training import Schedule, TrainReport, train, training_mode

SCHEDULE = Schedule(
    steps=5, batch_size=4, learning_rate=1e-3, warmup=0.2, clip=0.5, weight_decay=0.01
)
TEXT = "a fine film council votes tonight on it review quiet bridge x y z"
PLAIN, DROPPED = (QLoraConfig(compute_dtype="float32", dropout=rate) for rate in (0.0, 0.3))


@pytest.fixture(scope="module")
def slots(qwen2_folder) -> dict[QLoraConfig, PeftModel]:
    return {
        qlora: lora.attach(load_device_base(qwen2_folder, qlora), qlora, seed=0)
        for qlora in (PLAIN, DROPPED)
    }


@pytest.fixture(scope="module")
def jobs(qwen2_folder) -> list[CohortJob]:
    """Three users; rows of 20 to 50 tokens."""
    tokenizer = load_tokenizer(qwen2_folder)
    made, words = [], TEXT.split()
    for user in range(3):
        texts = [" ".join(words[(3 * i + user) % 5 : 5 + 7 * i % 11]) for i in range(8)]
        made.append(
            CohortJob(
                examples=[encode_example(tokenizer, t, t[::-1], None, 256) for t in texts],
                schedule=SCHEDULE,
                adapter_seed=10 + user,
                batch_seed=20 + user,
            )
        )
    return made


@contextmanager
def limited(
    model: PeftModel, tokens: int, *, rows: bool = False, backward: bool = False
) -> Iterator[list[int]]:
    """Let passes of more than ``tokens`` tokens have no memory, forward or backward.

    With ``rows`` they lie in padded rows, whose filling counts, else one after the other.

    Yields the tokens of each pass that got through.
    """
    seen: list[int] = []

    def refuse(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    def forward(_module, _inputs, output):
        size = output.shape[0] * output.shape[1]
        assert rows or output.shape[0] == 1
        if size <= tokens:
            seen.append(size)
        elif backward:
            output.register_hook(refuse)
        else:
            refuse()

    hook = model.get_base_model().model.layers[1].input_layernorm.register_forward_hook(forward)
    try:
        yield seen
    finally:
        hook.remove()


def difference(one, two) -> float:
    return max((one[name] - two[name]).abs().max().item() for name in one)


def largest_row(jobs) -> int:
    return max(len(example.input_ids) for job in jobs for example in job.examples)


@pytest.mark.parametrize("backward", [False, True])
def test_a_step_without_memory_is_computed_again_in_halves(slots, jobs, backward):
    model = slots[PLAIN]
    whole = train_cohort(model, jobs)
    assert all(result.report.reductions == 0 for result in whole)
    with limited(model, largest_row(jobs) + 10, backward=backward) as seen:
        parted = train_cohort(model, jobs)
    assert max(seen) <= largest_row(jobs) + 10
    for one, other in zip(whole, parted, strict=True):
        assert 1 <= other.report.reductions <= 6
        assert other.report.losses == pytest.approx(one.report.losses, abs=1e-5)
        assert other.report.tokens == one.report.tokens
        assert difference(one.state, other.state) < 1e-5
        fresh = lora.fresh(model, jobs[0].adapter_seed)
        assert difference(one.state, fresh) > 1e-3  # far more than the tolerance


def test_with_dropout_it_ends_as_if_its_micro_batches_had_been_small_from_the_start(slots, jobs):
    """To the last byte: the masks of the broken step are drawn anew from where they began."""
    model, tokens = slots[DROPPED], sum(len(e.input_ids) for e in jobs[0].examples)
    job = replace(jobs[0], schedule=replace(SCHEDULE, batch_size=8))  # every step is all records
    with limited(model, 1 << 20) as seen:
        train_cohort(model, [job])
    with limited(model, max(seen) - 1):
        (halved,) = train_cohort(model, [job])
    assert halved.report.reductions == 1
    budget = tokens // 2 * token_bytes(model)
    (small,) = train_cohort(model, [job], activation_bytes=budget)
    assert halved.report.losses == small.report.losses
    assert all(torch.equal(halved.state[name], small.state[name]) for name in small.state)
    (whole,) = train_cohort(model, [job])
    assert halved.report.losses != whole.report.losses  # other masks
    assert halved.report.losses == pytest.approx(whole.report.losses, rel=0.05)


@pytest.mark.parametrize("qlora", [PLAIN, DROPPED])
def test_checkpointed_blocks_bring_the_same_bytes(slots, jobs, qlora):
    model = slots[qlora]
    plain = train_cohort(model, jobs, activation_bytes=1 << 40)
    again = train_cohort(model, jobs, activation_bytes=1 << 40, checkpointing=True)
    for one, other in zip(plain, again, strict=True):
        assert one.report.losses == other.report.losses
        assert all(torch.equal(one.state[name], other.state[name]) for name in one.state)


def test_checkpointed_blocks_keep_less_for_the_backward_pass(slots, jobs):
    def kept(**settings) -> int:
        storages: dict[int, int] = {}

        def pack(tensor):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            one = replace(jobs[0], schedule=replace(SCHEDULE, steps=1))
            train_cohort(slots[PLAIN], [one], **settings)
        return len(storages)

    assert kept(checkpointing=True) < kept(checkpointing=False) / 3


def test_where_single_rows_do_not_fit_blocks_are_checkpointed_or_the_end_is_told(slots, jobs):
    model = slots[DROPPED]
    layer = model.get_base_model().model.layers[1]

    def needs_checkpoints(_module, _inputs):
        if torch.is_grad_enabled() and not _checkpointing():
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    hook = layer.input_layernorm.register_forward_pre_hook(needs_checkpoints)
    try:
        (found,) = train_cohort(model, jobs[:1])
        with pytest.raises(DoesNotFitError, match=r"out of memory with \d+ tokens of 1 users"):
            train_cohort(model, jobs[:1], checkpointing=False)
    finally:
        hook.remove()
    assert found.report.reductions >= 2
    budget = 1  # single rows
    (rows,) = train_cohort(model, jobs[:1], activation_bytes=budget)
    assert found.report.losses == rows.report.losses
    assert all(torch.equal(found.state[name], rows.state[name]) for name in rows.state)


def _checkpointing() -> bool:
    """Whether a checkpoint decides what the forward pass around the caller keeps."""
    return torch._C._autograd._top_saved_tensors_default_hooks(False) is not None


def test_no_memory_for_the_smallest_part_is_told_with_the_remedy_and_the_model_is_left(slots, jobs):
    model = slots[PLAIN]
    before = [(name, id(module)) for name, module in model.named_modules()]
    with (
        limited(model, 5),
        pytest.raises(DoesNotFitError, match=r"a smaller device model or qlora\.max_seq_len"),
    ):
        train_one(model, 0, jobs[0])
    assert [(name, id(module)) for name, module in model.named_modules()] == before
    assert not any("forward" in vars(module) for module in model.modules())
    train_one(model, 0, jobs[0])


def test_a_cohort_without_memory_for_its_adapters_is_halved(slots, jobs, monkeypatch):
    from models.multi_lora import cohort

    step, sizes = cohort.AdamW.step, []

    def refuse_three(self, stack, rates):
        sizes.append(len(stack.weights))
        if len(stack.weights) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        step(self, stack, rates)

    expected = train_cohort(slots[PLAIN], jobs)
    monkeypatch.setattr(cohort.AdamW, "step", refuse_three)
    found = train_shrinking(slots[PLAIN], jobs)
    assert sorted(set(sizes), reverse=True) == [3, 2, 1]
    for one, other in zip(expected, found, strict=True):
        assert other.report.reductions == 1
        assert difference(one.state, other.state) < 1e-5


def test_who_does_not_fit_alone_fails_alone(slots, jobs):
    long = replace(jobs[1], examples=[replace(jobs[1].examples[0], **longer(jobs[1]))])
    with limited(slots[PLAIN], largest_row(jobs) + 10):
        found = train_shrinking(slots[PLAIN], [jobs[0], long, jobs[2]])
    assert [type(each.error) for each in found] == [type(None), DoesNotFitError, type(None)]
    (alone,) = train_cohort(slots[PLAIN], [jobs[2]])
    assert difference(found[2].state, alone.state) < 1e-5


def longer(job: CohortJob) -> dict[str, list[int]]:
    example = job.examples[0]
    return {"input_ids": example.input_ids * 20, "labels": example.labels * 20}


def test_no_memory_for_the_optimizer_is_told_too(slots, jobs, monkeypatch):
    def refuse(*_: object) -> None:
        raise RuntimeError("[enforce fail at alloc] DefaultCPUAllocator: can't allocate memory: 9")

    monkeypatch.setattr("models.multi_lora.cohort.AdamW.step", refuse)
    with pytest.raises(DoesNotFitError, match="for the adapters of 2 users"):
        train_cohort(slots[PLAIN], jobs[:2])


def by_the_plain_loop(model, job) -> tuple[TrainReport, dict[str, torch.Tensor]]:
    lora.fill(model, lora.fresh(model, job.adapter_seed), "of a test")
    report = train(model, 0, job.examples, job.schedule, job.batch_seed)
    return report, lora.snapshot(model)


def by_dp_sgd(model, job) -> tuple[TrainReport, dict[str, torch.Tensor]]:
    """Records of four examples each, as the cloud's texts make them."""
    lora.fill(model, lora.fresh(model, job.adapter_seed), "of a test")
    records = [job.examples[:4], job.examples[4:]]
    guarantee = Guarantee(epsilon=8.0, delta=1e-3, clip=0.5)
    report = train_privately(
        model, 0, records, job.schedule, guarantee, SeededDraws(5), job.batch_seed
    )
    return report, lora.snapshot(model)


LOOPS = pytest.mark.parametrize("loop", [by_the_plain_loop, by_dp_sgd])


@LOOPS
@pytest.mark.parametrize("backward", [False, True])
def test_the_other_loops_halve_a_step_too(slots, jobs, loop, backward):
    model, job = slots[PLAIN], jobs[0]
    whole, expected = loop(model, job)
    with limited(model, 2 * largest_row(jobs), rows=True, backward=backward) as seen:
        parted, found = loop(model, job)
    assert max(seen) <= 2 * largest_row(jobs)
    assert whole.reductions == 0
    assert 1 <= parted.reductions <= 3
    assert parted.losses == pytest.approx(whole.losses, abs=1e-5)
    assert parted.tokens == whole.tokens
    assert difference(expected, found) < 1e-5
    assert difference(expected, lora.fresh(model, job.adapter_seed)) > 1e-3


@LOOPS
def test_with_dropout_the_other_loops_repeat_the_masks_of_smaller_micro_batches(slots, jobs, loop):
    model, job, most = slots[DROPPED], jobs[0], 2 * largest_row(jobs)
    with limited(model, most, rows=True):
        first, state = loop(model, job)
    with limited(model, most, rows=True):
        again, other = loop(model, job)
    assert first.reductions >= 1
    assert first.losses == again.losses
    assert all(torch.equal(state[name], other[name]) for name in state)


def test_the_masks_of_a_broken_pass_are_drawn_anew(slots, jobs):
    model, rows = slots[DROPPED], jobs[0].examples[:4]
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    tokens = sum(len(row.input_ids) for row in rows)

    def gradients(most_tokens: int, begin: int) -> tuple[torch.Tensor, ...]:
        gradient = BatchGradient(model, trained, 0)
        gradient._shrinking.most_tokens = begin
        with limited(model, most_tokens, rows=True), training_mode(model, 3):
            return gradient.of(rows)[0]

    broken, small = gradients(2 * largest_row(jobs), 1 << 40), gradients(1 << 40, tokens // 2)
    assert all(torch.equal(one, other) for one, other in zip(broken, small, strict=True))


@LOOPS
def test_the_other_loops_tell_that_single_rows_do_not_fit(slots, jobs, loop):
    with (
        limited(slots[PLAIN], 5, rows=True),
        pytest.raises(DoesNotFitError, match=r"a smaller device model or qlora\.max_seq_len"),
    ):
        loop(slots[PLAIN], jobs[0])
    assert not slots[PLAIN].training


def test_no_memory_for_dp_sgds_optimizer_is_told(slots, jobs, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(torch.optim.AdamW, "step", refuse)
    with pytest.raises(DoesNotFitError, match="for the adapters of 1 users"):
        by_dp_sgd(slots[PLAIN], jobs[0])


def test_other_errors_are_not_taken_for_a_lack_of_memory(slots, jobs):
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError("x"))
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
    assert not is_out_of_memory(ValueError("CUDA out of memory."))
