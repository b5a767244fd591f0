"""M_base and M_cloud: the two models tuned on the public users, cached by content.

M_base is the small model: LoRA tuning in its own precision, merge, then NF4. What every device
downloads once is the quantised folder; its content id names it in messages and ledger. M_cloud is
the large model, which stays in the cloud; only its adapter is stored. Both learn from the same
public records, with the same settings unless ``qlora.cloud_*`` gives M_cloud its own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from conf.schema import CausalModelConfig, Config
from conf.seeds import derive_seed
from lamp import tasks
from lamp.records import Prompt, UserHistory
from models.checkpoint import model_identity
from storage import atomic
from storage.hashing import hash_json
from strategy import public as public_users
from strategy.device_memory import free_unused
from strategy.progress import Progress
from strategy.public import PublicUsers
from strategy.tuning import tune

VERSION = 3  # of this stage's code; part of the cache key
CLOUD_SETTINGS = ("learning_rate", "epochs", "batch_size")  # that M_cloud may have apart
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
    base_id = name_base(config, public)
    folder = bases_root(Path(config.paths.cache)) / base_id
    if not atomic.is_whole(folder):
        _build(config, public, folder, progress)
        free_unused(config.resources.cloud_device)
    facts = json.loads((folder / atomic.MARKER).read_text(encoding="utf-8"))
    return BaseModel(base_id, folder, facts["bytes"], tuple(facts["losses"]))


def ensure_untuned(config: Config) -> BaseModel:
    """Take the device model as it comes, in NF4, from the cache, or quantise and store it."""
    base_id = hash_json({**_device_identity(config), "untuned": True})
    folder = bases_root(Path(config.paths.cache)) / base_id
    if not atomic.is_whole(folder):
        _build_untuned(config, folder)
        free_unused(config.resources.cloud_device)
    facts = json.loads((folder / atomic.MARKER).read_text(encoding="utf-8"))
    return BaseModel(base_id, folder, facts["bytes"], ())


def ensure_cloud(config: Config, public: PublicUsers, progress: Progress) -> Path:
    """Take M_cloud's adapter folder from the cache, or tune the large model and store it."""
    folder = Path(config.paths.cache) / "clouds" / name_cloud(config, public)
    config = _with_cloud_settings(config)
    if not atomic.is_whole(folder):
        _build_cloud(config, public, folder, progress)
        free_unused(config.resources.cloud_device)
    return folder


def name_cloud(config: Config, public: PublicUsers) -> str:
    """Content id of the M_cloud that a configuration and its public users make."""
    config = _with_cloud_settings(config)
    return hash_json(
        {
            **model_key(config, config.model.cloud),
            "task": asdict(config.task),
            "public": public.content_hash,
            "seed": config.seed,
        }
    )


def _with_cloud_settings(config: Config) -> Config:
    """The configuration with M_cloud's own settings of tuning in the place of M_base's."""
    qlora = config.qlora
    own = {
        f"base_{name}": value
        for name in CLOUD_SETTINGS
        if (value := getattr(qlora, f"cloud_{name}")) is not None
    }
    return replace(config, qlora=replace(qlora, **own))


def model_key(config: Config, model: CausalModelConfig) -> dict[str, Any]:
    """What a tuning of ``model`` depends on besides its examples, for a cache key."""
    qlora = asdict(config.qlora)
    return {
        "version": VERSION,
        "model": model_identity(model.path, model.revision),
        **({"adapter": model_identity(model.adapter, None)} if model.adapter else {}),
        "dtype": model.dtype,
        "system": model.system_prompt,
        **({} if model.system_turn == "system" else {"system_turn": model.system_turn}),
        "qlora": {key: value for key, value in qlora.items() if key.startswith(_SHAPES_BASE)},
    }


def _device_identity(config: Config) -> dict[str, Any]:
    """What names the stored small model: weights are cast to the compute type, then quantised."""
    model, computed = config.model.device, config.qlora.compute_dtype
    cast = {} if computed == model.dtype else {"compute_dtype": computed}
    return {**model_key(config, model), **cast}


def name_base(config: Config, public: PublicUsers) -> str:
    """Content id of the M_base that a configuration and its public users make."""
    return hash_json(
        {
            **_device_identity(config),
            "task": asdict(config.task),
            "public": public.content_hash,
            "seed": config.seed,
        }
    )


def _build(config: Config, public: PublicUsers, folder: Path, progress: Progress) -> None:
    from models import loading

    model = config.model.device
    tokenizer = loading.configured_tokenizer(model)
    examples = _examples(config, public_users.read(public))
    tuned, losses = tune(config, model, "base", tokenizer, examples, progress)
    _store(config, tuned.merge_and_unload(), tokenizer, folder, {"losses": list(losses)})


def _build_untuned(config: Config, folder: Path) -> None:
    from models import loading

    model = config.model.device
    tokenizer = loading.configured_tokenizer(model)
    loaded = loading.load_causal(model, config.resources.cloud_device)
    _store(config, loaded, tokenizer, folder, {})


def _build_cloud(config: Config, public: PublicUsers, folder: Path, progress: Progress) -> None:
    from models import loading, lora

    model = config.model.cloud
    tokenizer = loading.configured_tokenizer(model)
    examples = _examples(config, public_users.read(public))
    tuned, losses = tune(config, model, "cloud", tokenizer, examples, progress)
    with atomic.new_folder(folder, {"losses": list(losses)}) as made:
        lora.save(tuned, made)


def _store(
    config: Config, model: Any, tokenizer: Any, folder: Path, marker: dict[str, Any]
) -> None:
    """Quantise ``model`` and store it as devices download it."""
    from models import loading

    with TemporaryDirectory() as plain, atomic.new_folder(folder, marker) as made:
        model.save_pretrained(plain)
        tokenizer.save_pretrained(made)
        marker["bytes"] = loading.quantise_folder(
            plain, made, config.qlora, config.resources.cloud_device
        )


def _examples(config: Config, users: Sequence[UserHistory]) -> list[tuple[Prompt, str]]:
    """Public users' queries with gold answers and pairs of their profiles, at most the limit."""
    task = tasks.task(config.task)
    examples = [
        (tasks.as_prompt(task, query.input), query.gold) for user in users for query in user.queries
    ]
    examples += [tasks.training_example(task, pair) for user in users for pair in user.pairs]
    limit = config.qlora.base_max_records
    if limit is None or len(examples) <= limit:
        return examples
    return Random(derive_seed(config.seed, "base", "records")).sample(examples, limit)
