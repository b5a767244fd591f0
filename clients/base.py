"""The frozen base on the device: loaded once per process, with one adapter slot that is reused."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from conf.schema import QLoraConfig
from models import loading, lora


@dataclass(frozen=True, slots=True)
class Base:
    """M_base in NF4 (or its dequantised twin) with the LoRA slot attached.

    Attributes:
        model: Frozen base with one adapter slot.
        tokenizer: The base's tokenizer.
        folder: Where it was loaded from.
    """

    model: PeftModel
    tokenizer: Any
    folder: Path


@lru_cache(maxsize=1)
def load(folder: Path, qlora: QLoraConfig, threads: int) -> Base:
    """Load M_base for this process; the second call with the same arguments is free."""
    torch.set_num_threads(threads)
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    model = loading.load_device_base(str(folder), qlora, device)
    return Base(
        model=lora.attach(model, qlora, seed=0),
        tokenizer=loading.load_tokenizer(str(folder)),
        folder=folder,
    )
