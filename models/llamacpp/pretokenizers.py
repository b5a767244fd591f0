"""How a byte-level BPE tokenizer cuts a text into words, by llama.cpp's names for it.

A GGUF names its pre-tokenizer (``tokenizer.ggml.pre``); a Hugging Face folder holds the rules. With
the wrong ones most texts get the right ids and numbers or runs of white space do not.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tokenizers import Regex, pre_tokenizers
from tokenizers.pre_tokenizers import PreTokenizer

from conf.errors import ModelError
from conf.names import suggestion

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _gpt2() -> PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def _smollm() -> PreTokenizer:
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _gpt2()])


def _qwen2() -> PreTokenizer:
    words = pre_tokenizers.Split(Regex(_QWEN2), behavior="isolated")
    parts = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([words, parts])


KNOWN: dict[str, Callable[[], PreTokenizer]] = {
    "gpt-2": _gpt2,
    "smollm": _smollm,
    "qwen2": _qwen2,
}


def pretokenizer(name: str) -> PreTokenizer:
    """Return the pre-tokenizer that a GGUF names.

    Raises:
        ModelError: If it is none that is known here.
    """
    if name not in KNOWN:
        raise ModelError(f"tokenizer.ggml.pre={name}: not supported. {suggestion(name, KNOWN)}")
    return KNOWN[name]()


def name_of(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return llama.cpp's name of what ``tokenizer`` cuts words with.

    Raises:
        ModelError: If llama.cpp would cut words in another way.
    """
    backend: Any = tokenizer.backend_tokenizer
    rules = _rules(backend.pre_tokenizer)
    for name, make in KNOWN.items():
        if rules == _rules(make()):
            return name
    raise ModelError(
        f"tokenizer {tokenizer.name_or_path}: expected the pre-tokenizer of "
        f"{', '.join(KNOWN)}, got another; llama.cpp would cut texts in another way"
    )


def _rules(found: PreTokenizer | None) -> Any:
    """The rules as JSON, without ``trim_offsets``: that moves offsets, no ids."""
    if found is None:
        return None
    rules: Any = json.loads(found.__getstate__())
    for part in rules.get("pretokenizers", [rules]):
        part.pop("trim_offsets", None)
    return rules
