"""What the comparisons with llama.cpp are made of; they themselves run by hand."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import efficiency, llamacpp_cost
from benchmarks.efficiency import Cost, Way
from benchmarks.parity_texts import prompts, texts

GOLDEN = Path(__file__).parents[1] / "models" / "golden" / "smollm2_tokens.json"


def test_the_texts_are_many_distinct_and_the_ones_that_are_kept_with_ids() -> None:
    drawn = texts()
    assert len(set(drawn)) == len(drawn) > 500
    kept = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert [(each["kind"], each["text"]) for each in kept] == list(drawn)


def test_the_prompts_are_distinct() -> None:
    assert len(set(prompts())) == 24


def test_the_verdict_takes_storage_and_speed_of_each_pair(tmp_path: Path) -> None:
    for name, size in (("cloud", 1000), ("device", 150), ("adapter", 40)):
        (tmp_path / name).write_bytes(bytes(size))
    cloud, device, adapter = (str(tmp_path / name) for name in ("cloud", "device", "adapter"))
    ways = [
        Way("large", "llama.cpp", True, cloud, "", "", 1),
        Way("small", "llama.cpp", False, device, "", adapter, 1),
    ]
    costs = [Cost(0.1, 10.0, 1), Cost(0.1, 29.0, 1)]
    assert efficiency._verdicts(ways, costs) == [
        "- llama.cpp, small against large: 81% less storage (the claim holds), 2.9 x the tokens "
        "per second (the claim does not hold)."
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_that_of_this_process() -> None:
    before = llamacpp_cost.pss()
    held = bytearray(b"x" * (64 << 20))
    assert llamacpp_cost.pss() - before > len(held) // 2
