"""llama.cpp in this process: one base model, adapters that are switched without loading it again.

Works on token ids alone, greedily, one prompt at a time, as a phone does. The binding is the C API
of llama-cpp-python, imported at first use: everything else works without it.
"""

from __future__ import annotations

import ctypes
import importlib
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from conf.errors import ModelError

BATCH = 512  # tokens of a prompt that are computed at once
_ROUND = 256  # a context grows by so many tokens; llama.cpp pads it to this anyway


@dataclass(frozen=True, slots=True)
class Continuation:
    """What the model wrote.

    Attributes:
        ids: Tokens, the stop token included where it came.
        finished: Whether a stop token ended it.
        first_token_s: Seconds from the call to the first token: the prompt's time.
        seconds: Seconds from the call to the last token.
    """

    ids: tuple[int, ...]
    finished: bool
    first_token_s: float
    seconds: float


def binding() -> Any:
    """Return the module of llama-cpp-python's C API; its messages below errors are dropped.

    Raises:
        ModelError: If it is not installed.
    """
    try:
        api: Any = importlib.import_module("llama_cpp.llama_cpp")
    except ImportError as error:
        raise ModelError(
            f"llama.cpp: expected the package llama-cpp-python, got {type(error).__name__}; "
            "install it with make llamacpp"
        ) from error
    api.llama_log_set(_log(api), ctypes.c_void_p(0))
    return api


class Runtime:
    """A GGUF base in memory with at most one adapter switched on; a context manager.

    Its context, memory for a prompt with its continuation, grows with what is asked, up to the
    length that the model was trained for.

    Args:
        base: GGUF file of the base model; mapped, not copied.
        threads: CPU threads.

    Raises:
        ModelError: If the binding is missing, or llama.cpp cannot load the file.
    """

    def __init__(self, base: Path, *, threads: int) -> None:
        self._api = binding()
        self._base = base
        self._threads = threads
        self._model = _loaded(self._api, base)
        self._longest = int(self._api.llama_model_n_ctx_train(self._model))
        self._context = 0
        self._handle: Any = None
        self._active: Path | None = None
        self._vocabulary = self._api.llama_model_get_vocab(self._model)
        self._rows = int(self._api.llama_vocab_n_tokens(self._vocabulary))
        self._adapters: dict[Path, Any] = {}

    def __enter__(self) -> Runtime:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the memory back."""
        if self._model is None:
            return
        for adapter in self._adapters.values():
            self._api.llama_adapter_lora_free(adapter)
        self._free_context()
        self._api.llama_model_free(self._model)
        self._adapters, self._model, self._active = {}, None, None

    def switch(self, adapter: Path | None) -> None:
        """Answer with ``adapter`` from now on, None for the base alone; the base stays loaded.

        An adapter is read at its first use and kept until the runtime is closed or it is dropped.

        Raises:
            ModelError: If llama.cpp cannot load it onto this base.
        """
        if adapter is not None:
            self._adapter(adapter)
        self._active = adapter
        if self._handle:
            self._apply()

    def drop(self, adapter: Path) -> None:
        """Forget an adapter that was switched on before; the base alone answers then."""
        self.switch(None)
        handle = self._adapters.pop(adapter, None)
        if handle is not None:
            self._api.llama_adapter_lora_free(handle)

    def tokenize(self, text: str, *, control: bool) -> list[int]:
        """Return the ids that llama.cpp's own tokenizer gives ``text``.

        Args:
            text: Any text.
            control: Whether markup such as ``<|im_end|>`` becomes a control token.
        """
        raw = text.encode("utf-8")
        ids = (self._api.llama_token * (len(raw) + 8))()
        count = self._api.llama_tokenize(
            self._vocabulary, raw, len(raw), ids, len(ids), False, control
        )
        return list(ids[:count])

    def logits(self, ids: Sequence[int], start: int = 0) -> npt.NDArray[np.float32]:
        """Return the (len(ids) - start, V) logits behind each token from ``start`` on."""
        self._begin(len(ids))
        rows = []
        for at in range(0, len(ids), BATCH):
            part = ids[at : at + BATCH]
            asked = [at + place >= start for place in range(len(part))]
            self._decode(part, at, asked)
            rows += [self._row(place) for place, wanted in enumerate(asked) if wanted]
        return np.stack(rows)

    def greedy(self, ids: Sequence[int], limit: int, stops: Collection[int]) -> Continuation:
        """Continue a prompt with the most likely token, until a stop token or ``limit`` tokens.

        Args:
            ids: The prompt.
            limit: Longest continuation.
            stops: Tokens that end it.

        Raises:
            ModelError: If prompt and continuation exceed what the model was trained for.
        """
        started = time.perf_counter()
        self._begin(len(ids) + limit)
        self._prefill(ids)
        written, first = [int(self._row(-1).argmax())], time.perf_counter() - started
        while written[-1] not in stops and len(written) < limit:
            self._decode(written[-1:], len(ids) + len(written) - 1, [True])
            written.append(int(self._row(-1).argmax()))
        seconds = time.perf_counter() - started
        return Continuation(tuple(written), written[-1] in stops, first, seconds)

    def _prefill(self, ids: Sequence[int]) -> None:
        for at in range(0, len(ids), BATCH):
            part = ids[at : at + BATCH]
            self._decode(part, at, [at + place + 1 == len(ids) for place in range(len(part))])

    def _begin(self, tokens: int) -> None:
        """Make room for ``tokens`` and forget what was computed."""
        if tokens > self._context:
            self._grow(tokens)
        self._api.llama_memory_clear(self._api.llama_get_memory(self._handle), False)

    def _grow(self, tokens: int) -> None:
        if tokens > self._longest:
            raise ModelError(
                f"model {self._base.name}: expected at most {self._longest} tokens of prompt and "
                f"answer, got {tokens}"
            )
        self._free_context()
        self._context = min(self._longest, -(-tokens // _ROUND) * _ROUND)
        settings = self._api.llama_context_default_params()
        settings.n_ctx = self._context
        settings.n_batch = settings.n_ubatch = BATCH
        settings.n_threads = settings.n_threads_batch = self._threads
        settings.no_perf = True
        self._handle = self._api.llama_init_from_model(self._model, settings)
        if not self._handle:
            raise ModelError(
                f"model {self._base.name}: llama.cpp has no memory for a context of "
                f"{self._context} tokens"
            )
        self._apply()

    def _apply(self) -> None:
        chosen = [] if self._active is None else [self._adapters[self._active]]
        array = (self._api.llama_adapter_lora_p_ctypes * 1)(*chosen)
        scales = (ctypes.c_float * 1)(1.0)  # the file holds alpha; llama.cpp divides by the rank
        if self._api.llama_set_adapters_lora(self._handle, array, len(chosen), scales):
            raise ModelError(f"adapter {self._active}: llama.cpp could not switch to it")

    def _free_context(self) -> None:
        if self._handle:
            self._api.llama_free(self._handle)
        self._handle, self._context = None, 0

    def _adapter(self, path: Path) -> Any:
        if path not in self._adapters:
            handle = (
                self._api.llama_adapter_lora_init(self._model, str(path).encode())
                if path.is_file()
                else None
            )
            if not handle:
                raise ModelError(
                    f"adapter {path.name}: llama.cpp could not load it onto {self._base.name}; "
                    "export both again from one run"
                )
            self._adapters[path] = handle
        return self._adapters[path]

    def _decode(self, ids: Sequence[int], position: int, asked: Sequence[bool]) -> None:
        """Compute ``ids`` from ``position`` on; logits are kept where they are asked for."""
        batch = self._api.llama_batch_init(len(ids), 0, 1)
        try:
            batch.n_tokens = len(ids)
            for place, (token, wanted) in enumerate(zip(ids, asked, strict=True)):
                batch.token[place], batch.pos[place] = token, position + place
                batch.n_seq_id[place], batch.seq_id[place][0] = 1, 0
                batch.logits[place] = wanted
            status = self._api.llama_decode(self._handle, batch)
        finally:
            self._api.llama_batch_free(batch)
        if status:
            raise ModelError(
                f"llama.cpp: could not compute {len(ids)} tokens at {position} of "
                f"{self._context} (status {status})"
            )

    def _row(self, place: int) -> npt.NDArray[np.float32]:
        """A copy of the (V,) logits at ``place`` of the last batch."""
        pointer = self._api.llama_get_logits_ith(self._handle, place)
        return np.ctypeslib.as_array(pointer, shape=(self._rows,)).copy()


_callbacks: list[Any] = []  # ctypes does not keep what C still calls


def _log(api: Any) -> Any:
    if not _callbacks:
        _callbacks.append(api.llama_log_callback(_say))
    return _callbacks[0]


def _say(level: int, text: bytes, _data: Any) -> None:
    """Drop what llama.cpp tells; its failures become a ``ModelError`` where they are noticed."""


def _loaded(api: Any, base: Path) -> Any:
    api.llama_backend_init()
    settings = api.llama_model_default_params()
    settings.n_gpu_layers = 0
    model = api.llama_model_load_from_file(str(base).encode(), settings) if base.is_file() else None
    if not model:
        raise ModelError(
            f"model {base.name}: llama.cpp could not load it; expected a GGUF of an architecture "
            "that it knows, export it again"
        )
    return model
