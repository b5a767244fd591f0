"""The gate: what is held out, who keeps an adapter, and what is told of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from clients import adaptation, adapters, folder
from clients.base import Base
from clients.folder import Device, Policy
from clients.gate import make_folds
from clients.outbound import thinned
from conf.compose import compose
from lamp.records import Pair, UserHistory
from models import loading, lora
from models.chat import Encoded
from models.multi_lora.cohort import CohortJob
from models.training import Schedule
from protocol.messages import AdaptReply, AdaptRequest
from protocol.settings import settings_of, settings_to_json

WORDS = ["task=lamp_4", "qlora.compute_dtype=float32", "qlora.batch_size=2", "qlora.epochs=4"]


def job(examples: int, steps: int = 12) -> CohortJob:
    rows = [Encoded([place, 1], [-100, 1]) for place in range(examples)]
    schedule = Schedule(
        steps=steps, batch_size=2, learning_rate=1.0, warmup=0.0, clip=1.0, weight_decay=0.0
    )
    return CohortJob(examples=rows, schedule=schedule, adapter_seed=0, batch_seed=3)


def test_a_record_is_held_out_once_and_with_all_that_was_made_from_it():
    sources = [0, 1, 2, 3, 0, 0, 3, None]  # four records, three texts from two of them, one other
    records = [[at for at, source in enumerate(sources) if source == own] for own in range(4)]
    folds = make_folds(job(8), records, 2)
    held = [{row.input_ids[0] for row in fold.held_out} for fold in folds]
    assert held[0] | held[1] == {0, 1, 2, 3}
    assert not held[0] & held[1]
    for fold, out in zip(folds, held, strict=True):
        trained = {row.input_ids[0] for row in fold.job.examples}
        assert trained == {place for place, source in enumerate(sources) if source not in out}
        assert fold.job.schedule.steps == 3 * -(-len(trained) // 2)


@pytest.mark.parametrize(("records", "number", "folds"), [(5, 5, 5), (3, 5, 3), (1, 2, 0)])
def test_folds_need_records(records, number, folds):
    assert len(make_folds(job(records), [[own] for own in range(records)], number)) == folds


@pytest.fixture(scope="module")
def trained(tmp_path_factory, qwen2_folder):
    """Train a user's adapter under a gate: reply, adapter, and the device."""
    settings = settings_of(compose([*WORDS, "qlora.max_seq_len=128"]))
    slot = lora.attach(loading.load_device_base(qwen2_folder, settings.qlora), settings.qlora, 0)
    base = Base(slot, loading.load_tokenizer(qwen2_folder), qwen2_folder)

    def train(
        responses: list[str], rate: float, recipe: str = '{"folds":2}'
    ) -> tuple[AdaptReply, dict[str, torch.Tensor], Device]:
        pairs = tuple(Pair(f"r{n}", f"text {n}", each) for n, each in enumerate(responses))
        history = UserHistory("17", (), pairs, ())
        place = tmp_path_factory.mktemp("device") / "17"
        device = folder.read(folder.create(place, history, Policy(1.0), b"x" * 32))
        own = replace(settings, qlora=replace(settings.qlora, learning_rate=rate))
        request = AdaptRequest(
            arm="gated",
            base_id="0abc",
            seed=1,
            settings=settings_to_json(own),
            kept=(Pair("r0/0", "another text 0", responses[0]),),
            extra_records=0,
            recipe=recipe,
        )
        reply = adaptation.adapt(device, base, request, own)
        return reply, adapters.read(device, "gated", base.model), device

    return train


def test_an_adapter_that_helps_is_that_of_a_training_without_a_gate(trained):
    responses = ["the same short title"] * 8
    reply, state, _ = trained(responses, 5e-3)
    plain, expected, _ = trained(responses, 5e-3, recipe="{}")
    assert (reply.gate, plain.gate) == (1, -1)
    assert (reply.steps, reply.records, reply.synthetic) == (plain.steps, 8, 1)
    for name, weight in expected.items():
        torch.testing.assert_close(state[name], weight, atol=1e-4, rtol=1e-3)


def test_an_adapter_that_harms_becomes_none(trained):
    responses = [letter * 40 for letter in "abcdefgh"]  # what one teaches is wrong for the others
    reply, state, _ = trained(responses, 0.05)
    assert reply.gate == 0
    assert not any(map(torch.any, state.values()))


def test_the_bit_leaves_with_exact_numbers_alone(trained):
    reply, _, device = trained(["the same short title"] * 8, 5e-3)
    policy = device.policy
    told = {
        numbers: thinned(reply, replace(policy, numbers=numbers)).gate
        for numbers in ("exact", "coarse", "none")
    }
    assert told == {"exact": 1, "coarse": -1, "none": -1}
