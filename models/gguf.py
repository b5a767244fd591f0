"""GGUF checkpoints: checked by their header, then dequantised once into a plain folder.

The weights are read by transformers' own loader, in the type in which the run computes, so a
converted folder gives the logits of ``from_pretrained(..., gguf_file=...)``. What that loader would
pass over in silence is refused here: how text is split before the merges
(``tokenizer.ggml.pre``), and rescaled rotary positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import gguf
import torch
from tokenizers import pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GgufConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    modeling_gguf_pytorch_utils,
)
from transformers.integrations.gguf.gguf_tokenizer_mapping import (
    GGUF_PRE_TOKENIZER_SPLITS,
    GGUF_TOKENIZER_TYPES,
)
from transformers.integrations.gguf.utils import is_gguf_arch_supported
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from conf.errors import ModelError
from models.gguf_header import ORIGINAL, Gguf
from models.loading import attempt, no_progress_bars, require_complete
from models.names import unusable

SPLIT = "tokenizer.ggml.pre"
SCALED = frozenset({"gpt-oss"})  # architectures whose scaling the loader takes over
BYTE_LEVEL = "gpt2"  # as tokenizer.ggml.model calls byte-level BPE
# Splits of tokenizer.ggml.pre that the library does not know, after llama.cpp's llama-vocab.cpp:
# each digit by itself, then GPT-2's; and GPT-2's alone, which is what the library falls back to.
SINGLE_DIGITS = frozenset({"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone"})
PLAIN_SPLITS = frozenset({"gpt-2", "phi-2", "olmo", "mpt"})


def require_loadable(source: Gguf) -> None:
    """Check what the header tells of network and tokenizer.

    Raises:
        ModelError: If the architecture, its rotary positions or the tokenizer are not supported.
    """
    _require_architecture(source)
    _require_plain_positions(source)
    _require_tokenizer(source)


def convert(source: Gguf, folder: Path, dtype: str, on_tensor: Callable[[int], None]) -> None:
    """Write the checkpoint of a GGUF file to ``folder`` in Hugging Face layout.

    Args:
        source: Header of the file.
        folder: Existing, empty folder.
        dtype: Type of the written weights; each is rounded once, from its dequantised value.
        on_tensor: Called with the number of tensors dequantised so far.

    Raises:
        ModelError: If the library cannot load it.
    """
    require_loadable(source)
    tokenizer = read_tokenizer(source)
    model = _load(source, dtype, on_tensor)
    if len(tokenizer) > model.config.vocab_size:
        raise _refused(
            source,
            f"at most {model.config.vocab_size} tokens, one for each row of the embedding",
            f"{len(tokenizer)}",
        )
    with no_progress_bars():
        _plain(model).save_pretrained(folder)
        for passing in ("is_local", "local_files_only"):  # how it was read, not what it is
            tokenizer.init_kwargs.pop(passing, None)
        tokenizer.save_pretrained(folder)


def _load(source: Gguf, dtype: str, on_tensor: Callable[[int], None]) -> PreTrainedModel:
    folder, name = str(source.path.parent), source.path.name
    options: dict[str, Any] = {
        "gguf_file": name,
        "local_files_only": True,
        "trust_remote_code": False,
    }
    with _watched(on_tensor):
        model, found = attempt(
            str(source.path),
            "a causal language model",
            lambda: AutoModelForCausalLM.from_pretrained(
                folder,
                config=AutoConfig.from_pretrained(folder, **options),  # or it is read twice
                quantization_config=GgufConfig(dequantize=True),
                dtype=getattr(torch, dtype),
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # reported, then refused below
                **options,
            ),
        )
    require_complete(str(source.path), found)
    loaded: PreTrainedModel = model
    return loaded


def _plain(model: PreTrainedModel) -> PreTrainedModel:
    """The same weights in a model that knows nothing of GGUF, which can be saved."""
    config = type(model.config).from_dict(
        {key: value for key, value in model.config.to_dict().items() if key not in _GGUF_KEYS}
    )
    config.architectures = [type(model).__name__]
    with torch.device("meta"):
        plain: PreTrainedModel = type(model)(config)
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.tie_weights()
    plain.generation_config = model.generation_config
    return plain


_GGUF_KEYS = ("quantization_config", "_name_or_path")


def read_tokenizer(source: Gguf) -> PreTrainedTokenizerFast:
    """Read the tokenizer of a GGUF file, which gives a text the ids that llama.cpp gives it.

    Raises:
        ModelError: If the library cannot read it.
    """
    tokenizer: PreTrainedTokenizerFast = attempt(
        str(source.path),
        "a tokenizer",
        lambda: PreTrainedTokenizerFast.from_pretrained(
            str(source.path.parent),
            gguf_file=source.path.name,
            local_files_only=True,
            trust_remote_code=False,
        ),
    )
    if source.metadata.get(SPLIT) in SINGLE_DIGITS:
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )
    return tokenizer


def _require_architecture(source: Gguf) -> None:
    known = modeling_gguf_pytorch_utils.GGUF_SUPPORTED_ARCHITECTURES
    name = source.architecture
    if name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and name in known:
        return
    if is_gguf_arch_supported(name):
        return
    raise _refused(source, "a language model such as llama, qwen2, qwen3 or gemma2", f"'{name}'")


def _require_plain_positions(source: Gguf) -> None:
    """Refuse rescaled rotary positions, which the loader would leave out."""
    if "rope_freqs.weight" in source.tensors:
        raise _refused(source, "plain rotary positions", "rescaled ones (rope_freqs.weight)")
    scaling = source.metadata.get(f"{source.architecture}.rope.scaling.type", "none")
    if scaling != "none" and source.architecture not in SCALED:
        raise _refused(source, "plain rotary positions", f"scaling '{scaling}'")


def _require_tokenizer(source: Gguf) -> None:
    kind = source.metadata.get("tokenizer.ggml.model")
    if kind not in GGUF_TOKENIZER_TYPES:
        raise _refused(source, "a tokenizer of byte-level BPE or sentencepiece", f"'{kind}'")
    split = source.metadata.get(SPLIT)
    if kind == BYTE_LEVEL and split not in {
        *GGUF_PRE_TOKENIZER_SPLITS,
        *SINGLE_DIGITS,
        *PLAIN_SPLITS,
    }:
        raise _refused(source, f"a known {SPLIT}", f"'{split}'")


@contextmanager
def _watched(on_tensor: Callable[[int], None]) -> Iterator[None]:
    """Count the tensors that the library's loader goes through, in place of its own bar.

    Meanwhile the header is parsed once instead of twice, and the map of names made once instead of
    for every module: half of the time of a small checkpoint.
    """

    def counting(tensors: Any, **_: Any) -> Iterator[Any]:
        for done, tensor in enumerate(tensors, start=1):
            yield tensor
            on_tensor(done)

    with (
        _replaced(modeling_gguf_pytorch_utils, "tqdm", counting),
        _replaced(gguf, "GGUFReader", lru_cache(maxsize=1)(gguf.GGUFReader)),
        _replaced(gguf, "get_tensor_name_map", lru_cache(maxsize=1)(gguf.get_tensor_name_map)),
    ):
        yield


@contextmanager
def _replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def _refused(source: Gguf, expected: str, got: str) -> ModelError:
    return unusable(source.path.name, expected, got, ORIGINAL)
