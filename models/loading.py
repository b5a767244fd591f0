"""Tokenizers and language models, from a local folder in Hugging Face layout or by hub name.

Everything that a library would choose silently is stated: the weights' type, NF4 instead of
bitsandbytes' default FP4, which layers stay unquantised, and that no weight may be missing (a
missing one would be drawn at random without an error). Code from a checkpoint is never run.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as library_logging

from conf.errors import ModelError
from conf.schema import CausalModelConfig, NliModelConfig, QLoraConfig
from models.chat import put_system_into_user_turn
from models.names import local_or_hub, unusable
from models.quantisation import dequantise, require_nf4

_LOAD_ERRORS = (OSError, ValueError, SafetensorError)


def load_tokenizer(path: str | Path, revision: str | None = None) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a checkpoint.

    Raises:
        ModelError: If there is none.
    """
    source = local_or_hub(path)
    tokenizer: PreTrainedTokenizerBase = attempt(
        source,
        "a tokenizer",
        lambda: AutoTokenizer.from_pretrained(source, **origin(source, revision)),
    )
    if len(tokenizer) <= len(tokenizer.added_tokens_decoder):  # made up from defaults
        raise unusable(source, "a tokenizer", "no vocabulary")
    return tokenizer


def configured_tokenizer(config: CausalModelConfig) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a configured model, its chat template as the configuration wants it.

    Raises:
        ModelError: If there is none.
    """
    tokenizer = load_tokenizer(config.path, config.revision)
    if config.system_turn == "user":
        put_system_into_user_turn(tokenizer)
    return tokenizer


def vocabulary_rows(path: str | Path, revision: str | None = None) -> int:
    """Return how many rows the output layer of a checkpoint has; more than it has tokens.

    Raises:
        ModelError: If there is no such checkpoint.
    """
    return int(config_of(path, revision).vocab_size)


def context_size(path: str | Path, revision: str | None = None) -> int:
    """Return how many tokens a checkpoint's network can attend to.

    Raises:
        ModelError: If there is no such checkpoint.
    """
    return int(config_of(path, revision).max_position_embeddings)


def config_of(path: str | Path, revision: str | None = None) -> Any:
    """Return the configuration of a checkpoint's network.

    Raises:
        ModelError: If there is no such checkpoint.
    """
    source = local_or_hub(path)
    return attempt(
        source,
        "a config.json",
        lambda: AutoConfig.from_pretrained(source, **origin(source, revision)),
    )


def load_causal(config: CausalModelConfig, device: str = "cpu") -> PreTrainedModel:
    """Load a causal language model in ``config.dtype``, in eval mode.

    Raises:
        ModelError: If there is none, or weights are missing.
    """
    source = local_or_hub(config.path)
    dtype = getattr(torch, config.dtype)
    model = _load(source, device, dtype=dtype, **origin(source, config.revision))
    return model if config.adapter is None else _merged(model, config.adapter)


def load_scorer(
    kind: Any, what: str, config: NliModelConfig, device: str = "cpu"
) -> PreTrainedModel:
    """Load what scores texts, in float32.

    Args:
        kind: One of transformers' Auto classes.
        what: What it should be, for the error.
        config: The checkpoint.
        device: Torch device.

    Raises:
        ModelError: If there is none, or weights are missing.
    """
    source = local_or_hub(config.path)
    model, found = attempt(
        source,
        what,
        lambda: kind.from_pretrained(
            source,
            dtype=torch.float32,
            device_map={"": device},
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported, then refused below
            **origin(source, config.revision),
        ),
    )
    require_complete(source, found)
    loaded: PreTrainedModel = model
    return loaded


def load_device_base(
    folder: str | Path, qlora: QLoraConfig, device: str = "cpu"
) -> PreTrainedModel:
    """Load the frozen base as the device holds it, in eval mode.

    Args:
        folder: A plain checkpoint, which is quantised while it is read, or one saved in NF4.
        qlora: Quantisation settings; with ``dequantise_once`` the dequantised twin is returned.
        device: Torch device.

    Raises:
        ModelError: If there is no such model, or a linear layer but ``lm_head`` is not in NF4.
    """
    model = _load_nf4(folder, qlora, device)
    return dequantise(model) if qlora.dequantise_once else model


def quantise_folder(
    source: str | Path, target: str | Path, qlora: QLoraConfig, device: str = "cpu"
) -> int:
    """Quantise the plain checkpoint in ``source`` and save it to ``target``.

    Returns:
        Bytes of the saved weights: what a device downloads.
    """
    return save_nf4(_load_nf4(source, qlora, device), Path(target))


def save_nf4(model: PreTrainedModel, folder: Path) -> int:
    """Save a 4-bit model (not a twin); ``load_device_base`` reads it without quantising again.

    Returns:
        Bytes of the saved weights.

    Raises:
        ModelError: If ``model`` is not in 4 bits.
    """
    if not getattr(model, "is_loaded_in_4bit", False):
        raise ModelError(
            f"folder {folder}: expected a model with 4-bit weights to save, got "
            "a plain or dequantised one; save before dequantising"
        )
    with no_progress_bars():
        model.save_pretrained(folder)
    return sum(path.stat().st_size for path in Path(folder).glob("*.safetensors"))


def attempt(source: str, what: str, load: Callable[[], Any]) -> Any:
    """Run ``load``; what a library raises for an unusable ``source`` becomes a ``ModelError``."""
    try:
        with no_progress_bars():
            return load()
    except _LOAD_ERRORS as error:
        reason = str(error).strip().partition("\n")[0]
        raise unusable(source, what, f"{type(error).__name__}: {reason}") from error


def require_complete(source: str, found: Mapping[str, Any]) -> None:
    """Check that every weight of the model came from the checkpoint.

    Args:
        source: The checkpoint.
        found: What ``from_pretrained`` returns for ``output_loading_info=True``.

    Raises:
        ModelError: If a weight was missing or had another shape; it would be random.
    """
    odd = {*found["missing_keys"], *(name for name, *_ in found["mismatched_keys"])}
    if odd:
        some = ", ".join(sorted(odd)[:3])
        got = f"{len(odd)} missing or of another shape ({some})"
        raise unusable(source, "all weights of the model that its config.json describes", got)


def _load(source: str, device: str, **settings: Any) -> PreTrainedModel:
    model, found = attempt(
        source,
        "a causal language model",
        lambda: AutoModelForCausalLM.from_pretrained(
            source,
            device_map={"": device},
            attn_implementation="sdpa",
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported, then refused below
            **settings,
        ),
    )
    require_complete(source, found)
    loaded: PreTrainedModel = model.eval()
    return loaded


def _merged(model: PreTrainedModel, adapter: str) -> PreTrainedModel:
    with warnings.catch_warnings():
        # PEFT 0.21 asks transformers 5.23 for a property that is renamed in transformers 6
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
        merged: PreTrainedModel = attempt(
            adapter,
            "a PEFT folder that fits the model",
            lambda: PeftModel.from_pretrained(model, adapter).merge_and_unload(),
        )
    loaded: PreTrainedModel = merged.eval()
    return loaded


def _load_nf4(folder: str | Path, qlora: QLoraConfig, device: str) -> PreTrainedModel:
    source = local_or_hub(folder)
    dtype = getattr(torch, qlora.compute_dtype)
    saved = config_of(source)
    settings: dict[str, Any] = {"dtype": dtype, **origin(source, None)}
    if hasattr(saved, "quantization_config"):
        _require_same(source, dict(saved.quantization_config), qlora)
    else:
        settings["quantization_config"] = _quantisation(qlora, dtype)
    model = _load(source, device, **settings)
    require_nf4(model, dtype)
    return model


def origin(source: str, revision: str | None) -> dict[str, Any]:
    """Return what ``from_pretrained`` has to know of where a checkpoint comes from.

    A local folder never asks the network, and code that a checkpoint brings is never run.
    """
    local = Path(source).is_dir()
    return {
        "revision": None if local else revision,
        "local_files_only": local,
        "trust_remote_code": False,
    }


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Keep the library's bars, one per file and process, out of the run's own display."""
    shown = library_logging.is_progress_bar_enabled()
    library_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            library_logging.enable_progress_bar()


def _quantisation(qlora: QLoraConfig, dtype: torch.dtype) -> BitsAndBytesConfig:
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=qlora.quant_type,  # the library's own default is fp4
        bnb_4bit_use_double_quant=qlora.double_quant,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=["lm_head"],  # the library's name; it holds for 4 bits too
    )


def _require_same(source: str, saved: dict[str, Any], qlora: QLoraConfig) -> None:
    expected = {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": qlora.quant_type,
        "bnb_4bit_use_double_quant": qlora.double_quant,
    }
    for key, value in expected.items():
        if saved.get(key) != value:
            raise unusable(source, f"a checkpoint saved with {key}={value}", f"{saved.get(key)}")
