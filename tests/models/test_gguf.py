from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from conf.errors import ModelError
from conf.schema import CausalModelConfig, QLoraConfig
from models import loading
from models.gguf import convert, require_loadable
from models.gguf_header import read_header
from tests.plugins import tiny_gguf

IDS = torch.tensor([[1, 70, 71, 72, 2, 100, 101]])


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf.write(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture(scope="module")
def folder(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("converted")
    convert(read_header(file), made, "float32", lambda _: None)
    return made


def logits(model) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=IDS).logits


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_converted_folder_has_the_logits_of_the_librarys_own_gguf_loading(
    tmp_path: Path, dtype: str, tied: bool
):
    source = tiny_gguf.write(tmp_path / "tiny.gguf", tied=tied)
    direct = AutoModelForCausalLM.from_pretrained(
        tmp_path,
        gguf_file=source.name,
        dtype=getattr(torch, dtype),
        quantization_config=GgufConfig(dequantize=True),
        attn_implementation="sdpa",
    )
    made = tmp_path / "made"
    made.mkdir()
    convert(read_header(source), made, dtype, lambda _: None)
    ours = loading.load_causal(CausalModelConfig(path=str(made), dtype=dtype))
    assert torch.equal(logits(ours), logits(direct))
    shared = ours.lm_head.weight.data_ptr() == ours.model.embed_tokens.weight.data_ptr()
    assert shared is tied


@pytest.mark.parametrize("kind", ["Q4_0", "Q5_0", "Q8_0", "F16"])
def test_every_type_of_weights_that_the_gguf_package_reads_is_converted(tmp_path: Path, kind: str):
    source = tiny_gguf.write(tmp_path / "tiny.gguf", kind=GGMLQuantizationType[kind])
    made = tmp_path / "made"
    made.mkdir()
    convert(read_header(source), made, "float32", lambda _: None)
    assert torch.isfinite(
        logits(loading.load_causal(CausalModelConfig(path=str(made), dtype="float32")))
    ).all()


def test_progress_counts_every_tensor(file: Path, tmp_path: Path, capsys):
    header, seen = read_header(file), []
    convert(header, tmp_path, "bfloat16", seen.append)
    assert seen == list(range(1, len(header.tensors) + 1))
    assert capsys.readouterr().err == ""  # the library's own bar would cut through the run's


def test_the_folder_is_plain(folder: Path):
    config = loading.config_of(folder)
    assert not hasattr(config, "quantization_config")
    assert "gguf" not in (folder / "config.json").read_text().lower()
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (1, 2, 2)


def test_the_folder_loads_in_nf4(folder: Path):
    model = loading.load_device_base(
        folder, QLoraConfig(compute_dtype="float32", dequantise_once=False)
    )
    assert model.is_loaded_in_4bit


def test_the_tokenizer_keeps_special_tokens_and_chat_template(folder: Path):
    tokenizer = loading.load_tokenizer(folder)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
    turn = tokenizer.apply_chat_template(
        [{"role": "user", "content": "the thing"}], tokenize=False, add_generation_prompt=True
    )
    assert turn == "<|im_start|>user\nthe thing<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.encode("<|im_end|>") == [2]


def test_a_split_that_the_library_does_not_know_is_set(folder: Path):
    """SmolLM parts the digits first; two blanks before a number then belong together."""
    tokenizer = loading.load_tokenizer(folder)
    pieces = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("in  19")
    assert [piece for piece, _ in pieces] == ["in", "ĠĠ", "1", "9"]


def test_ids_after_a_round_trip_through_the_folder_are_those_of_the_file(file: Path, folder: Path):
    direct = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    ours = loading.load_tokenizer(folder)
    for text in ("the thing", "<|im_start|>user\nx<|im_end|>", "naïve 日本 🎉", " the  the\n\n"):
        assert ours.encode(text) == direct.encode(text)


def test_a_file_that_is_cut_off_is_refused_wherever_the_cut_is(file: Path, tmp_path: Path):
    content, cut = file.read_bytes(), tmp_path / "cut.gguf"
    for size in (5, 23, 40, 500, 3000, len(content) // 2, len(content) - 64):
        cut.write_bytes(content[:size])
        with pytest.raises(ModelError, match=r"cut\.gguf: .*cut off after .*; download it again"):
            read_header(cut)


@pytest.mark.parametrize("content", [b"", b"GG", b"PK\x03\x04 a zip", b"<html>no such page</html>"])
def test_what_is_no_gguf_file_is_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "odd.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"^model odd\.gguf: expected a GGUF file, got [^\n]*$"):
        read_header(path)


@pytest.mark.parametrize("byte", range(4, 200, 7))
def test_a_flipped_byte_in_the_header_ends_in_an_error_or_a_header(
    file: Path, tmp_path: Path, byte: int
):
    content = bytearray(file.read_bytes())
    content[byte] ^= 0xFF
    path = tmp_path / "flipped.gguf"
    path.write_bytes(content)
    with suppress(ModelError):  # anything else fails the test
        require_loadable(read_header(path))


def test_an_architecture_that_is_no_language_model_is_refused(tmp_path: Path):
    header = read_header(tiny_gguf.write(tmp_path / "bert.gguf", architecture="bert"))
    with pytest.raises(ModelError, match=r"expected a language model .* got 'bert'; take the orig"):
        require_loadable(header)


@pytest.mark.parametrize("split", ["tongues", None])
def test_an_unknown_split_is_refused_as_its_ids_would_be_others(tmp_path: Path, split: str | None):
    header = read_header(tiny_gguf.write(tmp_path / "tiny.gguf", split=split))
    with pytest.raises(ModelError, match=r"expected a known tokenizer\.ggml\.pre"):
        require_loadable(header)


def test_rescaled_rotary_positions_are_refused_as_the_library_drops_them(tmp_path: Path):
    more = {"rope_freqs.weight": np.ones(8, dtype=np.float32)}
    header = read_header(tiny_gguf.write(tmp_path / "tiny.gguf", more=more))
    with pytest.raises(ModelError, match="expected plain rotary positions"):
        require_loadable(header)


def test_the_header_counts_parameters(file: Path, folder: Path):
    model = loading.load_causal(CausalModelConfig(path=str(folder), dtype="float32"))
    assert read_header(file).parameters == model.num_parameters()
