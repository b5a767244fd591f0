"""M_base: the small model tuned on the public users, merged, quantised to NF4, cached by content.

Order: LoRA tuning in the device model's own precision, merge, then quantise. What every device
downloads once is the quantised folder; its content id names it in messages and ledger.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from conf.schema import Config
from conf.seeds import derive_seed
from lamp import tasks
from lamp.records import UserHistory
from storage import atomic
from storage.hashing import hash_json
from strategy import public as public_users
from strategy.cloud_models import model_identity
from strategy.progress import Phase, Progress
from strategy.public import PublicUsers

VERSION = 1  # of this stage's code; part of the cache key
_SHAPES_BASE = (  # prefixes of the QLoRA keys that M_base depends on
    "base_", "rank", "alpha", "dropout", "warmup", "clip", "weight_decay", "max_seq_len",
    "quant_type", "double_quant",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class BaseModel:
    """M_base as the server offers it.

    Attributes:
        base_id: Content id; the folder's name below ``bases_root``.
        folder: NF4 checkpoint with tokenizer.
        bytes: Size of the checkpoint's weights, as downloaded once by each device.
        losses: Training loss per step, nats per scored token.
    """

    base_id: str
    folder: Path
    bytes: int
    losses: tuple[float, ...]


def bases_root(cache: Path) -> Path:
    """Where base models lie; one folder per base id."""
    return cache / "bases"


def ensure_base(config: Config, public: PublicUsers, progress: Progress) -> BaseModel:
    """Take M_base from the cache, or tune, merge, quantise and store it."""
    base_id = _base_id(config, public)
    folder = bases_root(Path(config.paths.cache)) / base_id
    if not atomic.is_complete(folder):
        _build(config, public, folder, progress)
    facts = json.loads((folder / atomic.MARKER).read_text(encoding="utf-8"))
    return BaseModel(base_id, folder, facts["bytes"], tuple(facts["losses"]))


def _base_id(config: Config, public: PublicUsers) -> str:
    qlora = asdict(config.qlora)
    return hash_json(
        {
            "version": VERSION,
            "device": model_identity(config.model.device.path, config.model.device.revision),
            "dtype": config.model.device.dtype,
            "system": config.model.device.system_prompt,
            "task": asdict(config.task),
            "qlora": {key: value for key, value in qlora.items() if key.startswith(_SHAPES_BASE)},
            "public": public.content_hash,
            "seed": config.seed,
        }
    )


def _build(config: Config, public: PublicUsers, folder: Path, progress: Progress) -> None:
    from models import loading

    examples = _examples(config, public_users.read(public))
    device, qlora = config.resources.cloud_device, config.qlora
    tokenizer = loading.load_tokenizer(config.model.device.path, config.model.device.revision)
    tuned, losses = _tune(config, tokenizer, examples, device, progress)
    marker: dict[str, Any] = {"losses": list(losses)}
    with TemporaryDirectory() as plain, atomic.new_folder(folder, marker) as made:
        tuned.save_pretrained(plain)
        tokenizer.save_pretrained(made)
        marker["bytes"] = loading.quantise_folder(plain, made, qlora, device)


def _tune(
    config: Config,
    tokenizer: Any,
    examples: Sequence[tuple[str, str]],
    device: str,
    progress: Progress,
) -> tuple[Any, tuple[float, ...]]:
    """LoRA-tune the device model on the public records and merge the adapter into it."""
    from models import loading, lora, training
    from models.chat import encode_example

    qlora, system = config.qlora, config.model.device.system_prompt
    encoded = [
        encode_example(tokenizer, *example, system=system, max_len=qlora.max_seq_len)
        for example in examples
    ]
    schedule = training.Schedule(
        steps=training.steps_for(len(encoded), qlora.base_batch_size, qlora.base_epochs),
        batch_size=qlora.base_batch_size,
        learning_rate=qlora.base_learning_rate,
        warmup=qlora.warmup,
        clip=qlora.clip,
        weight_decay=qlora.weight_decay,
    )
    model = lora.attach(
        loading.load_causal(config.model.device, device), qlora, derive_seed(config.seed, "base")
    )
    with progress.phase("base model", schedule.steps) as phase:
        report = training.train(
            model,
            tokenizer.pad_token_id,
            encoded,
            schedule,
            seed=derive_seed(config.seed, "base", "batches"),
            on_step=_advance(phase),
        )
    return model.merge_and_unload(), report.losses


def _advance(phase: Phase) -> Any:
    return lambda *_: phase.advance()


def _examples(config: Config, users: Sequence[UserHistory]) -> list[tuple[str, str]]:
    """Public users' queries with gold answers and pairs of their profiles, at most the limit."""
    task = tasks.task(config.task)
    examples = [(query.input, query.gold) for user in users for query in user.queries]
    examples += [tasks.training_prompt(task, pair) for user in users for pair in user.pairs]
    limit = config.qlora.base_max_records
    if limit is None or len(examples) <= limit:
        return examples
    return Random(derive_seed(config.seed, "base", "records")).sample(examples, limit)
