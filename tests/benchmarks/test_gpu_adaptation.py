"""The GPU's benchmark at a tiny size on the CPU; the sizes and formulas of the real one by hand."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from transformers import Qwen2Config

from benchmarks import gpu_adaptation, measure
from benchmarks.gpu_adaptation import (
    LARGE,
    NF4,
    SMALL,
    TINY,
    TINY_LARGE,
    TINY_LOAD,
    drawn_users,
    parameters_of,
    work,
)
from models.chat import IGNORED

# what the peers' libraries warn about is no matter of ours
pytestmark = pytest.mark.filterwarnings("ignore")


class Ids:
    eos_token_id, pad_token_id = 1, 0


def check(sheets: list[measure.Sheet]) -> None:
    small, decoding, large = sheets
    assert "shape of tiny:" in small.setting
    assert "shape of tiny, larger:" in large.setting
    for sheet in (small, large):
        flower_tune, oppu, unsloth, *ours = sheet.rows
        assert unsloth[-1] == "not installed: unsloth"
        assert [row[0] for row in ours] == ["ours, 1 user", "ours, 2 users"]
        if find_spec("trl") is None:  # `make bench-deps` brings it
            assert flower_tune[-1] == "not installed: trl"
        measured = [row for row in (flower_tune, oppu, *ours) if row[1] != "–"]
        assert len(measured) >= 3
        for row in measured:
            assert float(row[1].replace(",", "")) > 0
            assert float(row[-1]) == pytest.approx(8.3, abs=0.5)  # log of the 4,096 tokens
    sizes = [float(row[3].replace(",", "")) for row in decoding.rows]
    assert sizes[0] > sizes[1]
    assert sizes[2] == sizes[3]
    assert all(float(row[1]) > 0 for row in decoding.rows)


@pytest.mark.slow
def test_every_part_runs_on_a_cpu(monkeypatch):
    monkeypatch.setitem(sys.modules, "unsloth", None)
    check(list(gpu_adaptation.run((TINY, TINY_LARGE), "cpu", TINY_LOAD)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_every_part_runs_on_a_gpu(monkeypatch):
    monkeypatch.setitem(sys.modules, "unsloth", None)
    sheets = list(gpu_adaptation.run((TINY, TINY_LARGE), "cuda", TINY_LOAD))
    check(sheets)
    assert all(float(row[5]) >= 0 for row in sheets[1].rows)  # memory is measured there


def test_without_a_gpu_the_error_names_the_tiny_shape(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        gpu_adaptation.main([])
    assert "expected a CUDA device, got none" in (said := capsys.readouterr().err)
    assert "--shape tiny" in said


def test_the_command_appends_its_tables(monkeypatch, tmp_path, capsys):
    sheet = measure.Sheet("Small.", ("way", "tokens/s"), (("one", "2"),), "A note.")
    asked = []
    monkeypatch.setattr(gpu_adaptation, "run", lambda *words: asked.append(words) or [sheet])
    path = tmp_path / "RESULTS.md"
    assert gpu_adaptation.main(["--shape", "tiny", "--results", str(path)]) == 0
    assert asked[0][0] == (TINY, TINY_LARGE)
    assert "| way | tokens/s |\n|---|---|\n| one | 2 |\n\nA note." in path.read_text()


@pytest.mark.parametrize(("shape", "parameters"), [(SMALL, 357_898_112), (LARGE, 2_774_773_760)])
def test_parameters_without_embedding_are_those_of_qwen(shape, parameters):
    width, inner, keys = shape.width, shape.feed_forward, shape.width // shape.heads * 2
    attention = 2 * width * width + 2 * width * keys + width + 2 * keys  # q, o, k, v; biases
    by_hand = shape.layers * (attention + 3 * width * inner + 2 * width) + width
    assert parameters_of(shape, Ids) == by_hand == parameters


def test_shapes_share_two_key_value_heads_and_tie_the_embedding():
    for shape in (SMALL, LARGE):
        config = shape.config(Ids)
        assert isinstance(config, Qwen2Config)
        assert (config.num_key_value_heads, config.vocab_size) == (2, 151_936)
        assert config.tie_word_embeddings


def test_a_device_decodes_from_its_four_bit_weights():
    assert not NF4.dequantise_once


def test_work_is_four_operations_per_parameter_and_token():
    assert work(10, 3) == 120


def test_drawn_records_begin_differently_and_score_their_end():
    (user,) = drawn_users(TINY, 1, 8)
    assert len({record.input_ids[0] for record in user}) > 1
    assert all(64 <= len(record.input_ids) <= 128 for record in user)
    assert all(record.labels[-16:] == record.input_ids[-16:] for record in user)
    assert all(set(record.labels[:-16]) == {IGNORED} for record in user)


def test_the_peak_is_that_of_the_largest_part(monkeypatch):
    """Each cohort counts anew: what the last one of two users took is not the way's peak."""
    memory = gpu_adaptation._Memory("cuda")
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 1 << 30)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3 << 30)

    def run() -> str:
        memory.saw(8 << 30)
        memory.saw(2 << 30)
        return "done"

    memory.way("a way", run, 1, own=1 << 30).run()
    assert memory.cell("a way") == "8.0"
    memory.way("a way", lambda: "done", 1).run()
    assert memory.cell("a way") == "2.0"


def test_out_of_memory_is_a_row_that_says_so():
    def greedy() -> str:
        raise torch.OutOfMemoryError("CUDA out of memory")

    (row,) = measure.measure([measure.Way("large", greedy, 1)], rounds=1)
    assert (row.seconds, row.result) == (None, "out of memory")


def test_a_cohort_that_memory_splits_is_named_so():
    assert gpu_adaptation._name(32, 12) == "ours, 32 users, 12 at once by memory"
    assert gpu_adaptation._name(1, 1) == "ours, 1 user"


def test_tiny_load_is_the_real_one_but_for_its_size():
    assert replace(TINY_LOAD, cohorts=(1, 8, 32), records=64, matrix=8192, rounds=3).sampling == (
        replace(gpu_adaptation.GREEDY, max_new_tokens=4)
    )
