"""A training that is ended after any step goes on to the same bytes."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from conf.schema import QLoraConfig
from models import lora
from models.chat import encode_example
from models.loading import load_device_base, load_tokenizer
from models.multi_lora.cohort import CohortJob, CohortResult, train_cohort
from models.save_point import SavePoint
from models.training import Schedule

QLORA = QLoraConfig(compute_dtype="float32", dropout=0.3)
STEPS = 6
SCHEDULE = Schedule(
    steps=STEPS, batch_size=2, learning_rate=1e-2, warmup=0.2, clip=0.5, weight_decay=0.01
)


class KilledError(Exception):
    """Stands for the end of a process."""


@pytest.fixture(scope="module")
def slot(qwen2_folder):
    return lora.attach(load_device_base(qwen2_folder, QLORA), QLORA, seed=0)


@pytest.fixture(scope="module")
def job(qwen2_folder) -> CohortJob:
    tokenizer = load_tokenizer(qwen2_folder)
    texts = [f"Title number {n}" for n in range(5)]
    examples = [encode_example(tokenizer, t, t[::-1], None, 128) for t in texts]
    return CohortJob(examples=examples, schedule=SCHEDULE, adapter_seed=1, batch_seed=2)


@pytest.fixture(scope="module")
def whole(slot, job) -> CohortResult:
    return train_cohort(slot, [job])[0]


def killed_after(slot, job: CohortJob, saved: SavePoint, step: int) -> None:
    def end(done: int, _total: int) -> None:
        if done == step:
            raise KilledError

    with pytest.raises(KilledError):
        train_cohort(slot, [job], end, saved=saved)


def note(steps: list[tuple[int, int]], done: int, total: int) -> None:
    steps.append((done, total))


def assert_same(found: CohortResult, expected: CohortResult) -> None:
    assert found.report.losses == expected.report.losses
    assert (found.report.steps, found.report.tokens) == (STEPS, expected.report.tokens)
    assert all(torch.equal(found.state[name], expected.state[name]) for name in expected.state)


@pytest.mark.parametrize("every", [1, 2])
def test_after_any_step_it_goes_on_to_the_same_bytes(tmp_path: Path, slot, job, whole, every):
    for step in range(1, STEPS + 1):
        saved = SavePoint(tmp_path / f"{step}.safetensors", "key", every)
        killed_after(slot, job, saved, step)
        steps: list[tuple[int, int]] = []
        found = train_cohort(slot, [job], partial(note, steps), saved=saved)[0]
        assert_same(found, whole)
        assert len(steps) == STEPS - step // every * every


def test_saving_changes_nothing(tmp_path: Path, slot, job, whole):
    saved = SavePoint(tmp_path / "place.safetensors", "key", 1)
    assert_same(train_cohort(slot, [job], saved=saved)[0], whole)


@pytest.mark.parametrize("spoil", ["other key", "cut off"])
def test_what_is_not_its_own_or_not_whole_is_passed_over(tmp_path: Path, slot, job, whole, spoil):
    saved = SavePoint(tmp_path / "place.safetensors", "key", 1)
    killed_after(slot, job, saved, 3)
    if spoil == "other key":
        saved = replace(saved, key="another")
    else:
        saved.path.write_bytes(saved.path.read_bytes()[:-100])
    assert saved.read() is None
    assert_same(train_cohort(slot, [job], saved=saved)[0], whole)
