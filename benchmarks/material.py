"""What the benchmarks work on: the miniature world's users and networks with random weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from conf.compose import compose
from conf.schema import Config, QLoraConfig, TransformerSize
from lamp.dataset import LampData, load
from lamp.tasks import training_prompt
from models import loading, lora
from models.chat import Encoded, encode_pairs
from models.miniature.causal import new_causal
from models.miniature.tokenizer import train_tokenizer

VOCABULARY = 2048


@dataclass(frozen=True, slots=True)
class Material:
    """Data and a checkpoint.

    Attributes:
        config: Configuration that the data came from.
        data: Users of the miniature world.
        plain: Folder of a float32 checkpoint with tokenizer.
        tokenizer: Its tokenizer.
    """

    config: Config
    data: LampData
    plain: Path
    tokenizer: Any

    def examples(self, users: int, records: int) -> list[list[Encoded]]:
        """Training examples of the first ``users`` target users, ``records`` each."""
        return [
            encode_pairs(
                self.tokenizer, self.data.task, user.pairs[:records], system=None, max_len=256
            )
            for user in self.data.targets[:users]
        ]

    def quantised(self, qlora: QLoraConfig, device: str = "cpu") -> Path:
        """Folder of the checkpoint in NF4, with tokenizer; made at the first call."""
        folder = self.plain.with_name(f"nf4-{qlora.compute_dtype}")
        if not folder.exists():
            loading.quantise_folder(self.plain, folder, qlora, device)
            self.tokenizer.save_pretrained(folder)
        return folder


def make(
    folder: Path, size: TransformerSize, *, task: str = "lamp_4", users: int, records: int
) -> Material:
    """Write a world, each user with ``records`` records, and a checkpoint to ``folder``."""
    overrides = [
        f"task={task}",
        f"users={users}",
        f"world.population={users + 20}",
        "model.build.holdout=0",
        f"world.history_min={records}",
        f"world.history_max={records}",
        f"paths.cache={folder / 'world'}",
    ]
    config = compose(overrides)
    data = load(config)
    tokenizer = train_tokenizer(_texts(data), VOCABULARY)
    plain = folder / "plain"
    new_causal(size, tokenizer, seed=0).save_pretrained(plain)
    tokenizer.save_pretrained(plain)
    return Material(config, data, plain, loading.load_tokenizer(plain))


def trained_alike(slot: PeftModel, seed: int) -> dict[str, torch.Tensor]:
    """Draw an adapter that changes what the base says, as a trained one does."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {name: weight.shape for name, weight in lora.lora_parameters(slot).items()}
    return {n: torch.randn(shape, generator=generator) * 0.05 for n, shape in shapes.items()}


def _texts(data: LampData) -> Sequence[str]:
    return [
        text
        for user in data.public
        for pair in user.pairs
        for text in training_prompt(data.task, pair)
    ]
