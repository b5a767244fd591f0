"""A device that is killed while it trains goes on where it was."""

from __future__ import annotations

from dataclasses import replace

import pytest

from clients import adaptation, adapters, folder
from clients.base import Base
from clients.folder import Policy
from conf.compose import compose
from lamp.records import Pair, UserHistory
from models import loading, lora
from models.multi_lora.adamw import AdamW
from protocol.messages import AdaptRequest
from protocol.settings import settings_of, settings_to_json


class KilledError(BaseException):
    """Stands for the end of a process."""


def test_the_adapter_of_a_killed_device_has_the_same_bytes(tmp_path, qwen2_folder, monkeypatch):
    words = ["task=lamp_4", "qlora.compute_dtype=float32", "qlora.batch_size=2", "qlora.epochs=2"]
    settings = settings_of(compose([*words, "qlora.save_every=1", "qlora.max_seq_len=128"]))
    model = loading.load_device_base(qwen2_folder, settings.qlora)
    slot = lora.attach(model, settings.qlora, 0)
    base = Base(slot, loading.load_tokenizer(qwen2_folder), qwen2_folder)
    pairs = tuple(Pair(str(n), f"text {n}", f"title {n}") for n in range(6))

    def device(name):
        history = UserHistory("17", (), pairs, ())
        return folder.read(folder.create(tmp_path / name, history, Policy(1.0), b"x" * 32))

    request = AdaptRequest(
        arm="direct_ft",
        base_id="0abc",
        seed=1,
        settings=settings_to_json(settings),
        kept=(),
        extra_records=0,
    )
    whole, killed = device("whole"), device("killed")
    expected = adaptation.adapt(whole, base, request, settings)
    step, taken = AdamW.step, []

    def end_at_the_fourth(self, stack, rates):
        if len(taken) == 3:
            raise KilledError
        taken.append(1)
        step(self, stack, rates)

    monkeypatch.setattr(AdamW, "step", end_at_the_fourth)
    with pytest.raises(KilledError):
        adaptation.adapt(killed, base, request, settings)
    assert not adapters.fingerprint(killed, "direct_ft")
    places = list((killed.folder / "jobs").iterdir())
    steps = []
    monkeypatch.setattr(AdamW, "step", lambda *given: (steps.append(1), step(*given))[1])
    found = adaptation.adapt(killed, base, request, settings)
    assert len(places) == 1
    assert not list((killed.folder / "jobs").iterdir())
    assert len(steps) == expected.steps - 3
    assert found.losses == expected.losses
    assert adapters.fingerprint(killed, "direct_ft") == adapters.fingerprint(whole, "direct_ft")
    assert replace(found, seconds=0.0) == replace(expected, seconds=0.0)
