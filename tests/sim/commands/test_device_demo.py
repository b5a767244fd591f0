"""The demonstration over a run's devices; its table needs llama.cpp."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from conf.compose import compose
from conf.errors import ModelError, RunError
from models.llamacpp.runtime import Continuation
from protocol.settings import settings_of
from sim.commands import device_demo
from sim.commands.device_demo import Row, newest_adapted

HAS_LLAMACPP = find_spec("llama_cpp") is not None


def test_without_a_finished_run_it_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "begun").mkdir()
    with pytest.raises(RunError, match="expected a finished run with adapters, got none; run make"):
        newest_adapted(tmp_path)


@pytest.mark.skipif(HAS_LLAMACPP, reason="llama.cpp is installed")
def test_without_the_binding_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="make llamacpp"):
        device_demo.main([f"runs={tmp_path}", f"out={tmp_path / 'out'}"])
    assert list(tmp_path.iterdir()) == []


def test_speed_counts_prompts_and_answers_of_both_runtimes() -> None:
    written = (Continuation((5, 6), True, 0.1, 0.5), Continuation((7, 8, 9), False, 0.1, 0.5))
    row = Row("17", 10, 0.1, 0.01, written, theirs_s=2.0, theirs_tokens=4, equal=1)
    assert (row.tokens, row.seconds) == (5, 1.0)
    settings = settings_of(compose([]))
    assert device_demo._summary(settings, [row])[0].startswith(
        "llama.cpp wrote 5 tokens/s, transformers 2: 2.5 times"
    )
