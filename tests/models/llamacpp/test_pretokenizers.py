"""The rules by llama.cpp's names, held against ids that llama.cpp itself gave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import pre_tokenizers
from transformers import PreTrainedTokenizerFast

from conf.compose import compose
from conf.errors import ModelError
from models import gguf, sources
from models.chat import encode_text
from models.gguf_header import read_header
from models.llamacpp.pretokenizers import KNOWN, name_of, pretokenizer
from tests.plugins.qwen2 import build_tokenizer

GOLDEN = Path(__file__).parents[1] / "golden" / "smollm2_tokens.json"  # benchmarks.llamacpp_parity


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gpt-2", ["Ġ", "Ġ42", "Ġof", "Ġthem"]),
        ("smollm", ["ĠĠ", "4", "2", "Ġof", "Ġthem"]),
        ("qwen2", ["Ġ", "Ġ", "4", "2", "Ġof", "Ġthem"]),
    ],
)
def test_numbers_and_white_space_tell_the_rules_apart(name: str, words: list[str]) -> None:
    cut = pretokenizer(name).pre_tokenize_str("  42 of them")
    assert [word for word, _ in cut] == words


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_a_tokenizer_is_recognised_by_its_rules(name: str) -> None:
    tokenizer = build_tokenizer()
    tokenizer.backend_tokenizer.pre_tokenizer = pretokenizer(name)
    assert name_of(tokenizer) == name


def test_rules_of_another_kind_are_refused() -> None:
    tokenizer = build_tokenizer()
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(ModelError, match="expected the pre-tokenizer of gpt-2, smollm, qwen2"):
        name_of(tokenizer)


@pytest.fixture(scope="module")
def smollm2() -> PreTrainedTokenizerFast:
    """The tokenizer of SmolLM2-135M-Instruct's GGUF; needs what ``make pretrained`` fetches."""
    config = compose(["model=smollm2_wheel"])
    try:
        found = sources.locate(config.model.device, Path(config.paths.cache).expanduser())
    except ModelError:
        pytest.skip("needs the checkpoints of make pretrained, which are not there")
    return gguf.read_tokenizer(read_header(Path(found.place)))


def test_smollm2_gets_the_ids_that_llamacpp_gives(smollm2: PreTrainedTokenizerFast) -> None:
    golden: list[dict[str, Any]] = json.loads(GOLDEN.read_text(encoding="utf-8"))
    parsed = {each["text"]: each["ids"] for each in golden}
    plain = {each["text"]: each.get("plain_ids", each["ids"]) for each in golden}
    assert {text: smollm2.encode(text, add_special_tokens=False) for text in parsed} == parsed
    assert {text: encode_text(smollm2, text) for text in plain} == plain


def test_an_unknown_name_gets_the_nearest_one() -> None:
    with pytest.raises(ModelError, match="Did you mean 'smollm'"):
        pretokenizer("smollm2")
