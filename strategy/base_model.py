"""M_base and M_cloud: the two models tuned on the public users, cached by content.

M_base is the small model: LoRA tuning in its own precision, merge, then NF4. What every device
downloads once is the quantised folder; its content id names it in messages and ledger. M_cloud is
the large model, which stays in the cloud; only its adapter is stored. Both learn from the same
public records, with the same settings unless ``qlora.cloud_*`` gives M_cloud its own.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from conf.errors import RunError
from conf.schema import CausalModelConfig, QLoraConfig
from conf.seeds import derive_seed
from lamp import tasks
from lamp.holdout import as_query
from lamp.records import Pair, Prompt, Query, UserHistory
from lamp.retrieval import prompt_with_items
from lamp.tasks import Task
from models.checkpoint import model_identity
from storage import atomic
from storage.hashing import hash_json
from strategy import public as public_users
from strategy.device_memory import free_unused
from strategy.progress import Progress
from strategy.tuning import PublicTuning, tune

VERSION = 4  # of this stage's code; part of the cache key
RAG_SHARE = 0.5  # of the examples that show retrieved records, where the models are tuned for RAG
CLOUD_SETTINGS = ("learning_rate", "epochs", "batch_size")  # that M_cloud may have apart
_SHAPES_BASE = (  # prefixes of the QLoRA keys that M_base depends on
    "base_", "rank", "alpha", "dropout", "warmup", "clip", "weight_decay", "max_seq_len",
    "quant_type", "double_quant",
)  # fmt: skip
_APART = ("base_rag",)  # in the key by what it comes to, the number and length of records


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


@dataclass(frozen=True, slots=True)
class BaseModels:
    """The small models of a run; None for one that no method works with.

    Attributes:
        tuned_base: M_base, tuned on the public users.
        untuned_base: The device model as it comes, in NF4.
    """

    tuned_base: BaseModel | None = None
    untuned_base: BaseModel | None = None

    def of(self, *, tuned: bool) -> BaseModel:
        """The model that a method works with.

        Raises:
            RunError: If it was not made.
        """
        found = self.tuned_base if tuned else self.untuned_base
        if found is None:
            raise RunError(f"the {'tuned' if tuned else 'untuned'} base model was not made")
        return found


def bases_root(cache: Path) -> Path:
    """Where base models lie; one folder per base id."""
    return cache / "bases"


def ensure_bases(
    wanted: Collection[bool], model: CausalModelConfig, tuning: PublicTuning, progress: Progress
) -> BaseModels:
    """Take the small models from the cache, or make them.

    Args:
        wanted: True for M_base, False for the model as it comes.
        model: The device model.
        tuning: How M_base is tuned.
        progress: Where progress is told.
    """
    return BaseModels(
        tuned_base=ensure_base(model, tuning, progress) if True in wanted else None,
        untuned_base=ensure_untuned(model, tuning) if False in wanted else None,
    )


def ensure_base(model: CausalModelConfig, tuning: PublicTuning, progress: Progress) -> BaseModel:
    """Take M_base from the cache, or tune, merge, quantise and store it."""
    base_id = name_base(model, tuning)
    folder = bases_root(tuning.cache) / base_id
    if not atomic.is_whole(folder):
        _build(model, tuning, folder, progress)
        free_unused(tuning.device)
    facts = json.loads((folder / atomic.MARKER).read_text(encoding="utf-8"))
    return BaseModel(base_id, folder, facts["bytes"], tuple(facts["losses"]))


def ensure_untuned(model: CausalModelConfig, tuning: PublicTuning) -> BaseModel:
    """Take the device model as it comes, in NF4, from the cache, or quantise and store it."""
    base_id = hash_json({**_device_identity(model, tuning.qlora), "untuned": True})
    folder = bases_root(tuning.cache) / base_id
    if not atomic.is_whole(folder):
        _build_untuned(model, tuning, folder)
        free_unused(tuning.device)
    facts = json.loads((folder / atomic.MARKER).read_text(encoding="utf-8"))
    return BaseModel(base_id, folder, facts["bytes"], ())


def ensure_cloud(model: CausalModelConfig, tuning: PublicTuning, progress: Progress) -> Path:
    """Take M_cloud's adapter folder from the cache, or tune the large model and store it."""
    folder = tuning.cache / "clouds" / name_cloud(model, tuning)
    if not atomic.is_whole(folder):
        _build_cloud(model, _with_cloud_settings(tuning), folder, progress)
        free_unused(tuning.device)
    return folder


def name_base(model: CausalModelConfig, tuning: PublicTuning) -> str:
    """Content id of the M_base that a model, settings and public users make."""
    return hash_json({**_device_identity(model, tuning.qlora), **_examples_key(tuning)})


def name_cloud(model: CausalModelConfig, tuning: PublicTuning) -> str:
    """Content id of the M_cloud that a model, settings and public users make."""
    qlora = _with_cloud_settings(tuning).qlora
    return hash_json({**model_key(model, qlora), **_examples_key(tuning)})


def model_key(model: CausalModelConfig, qlora: QLoraConfig) -> dict[str, Any]:
    """What a tuning of ``model`` depends on besides its examples, for a cache key."""
    return {
        "version": VERSION,
        "model": model_identity(model.path, model.revision),
        **({"adapter": model_identity(model.adapter, None)} if model.adapter else {}),
        "dtype": model.dtype,
        "system": model.system_prompt,
        **({} if model.system_turn == "system" else {"system_turn": model.system_turn}),
        "qlora": {
            key: value
            for key, value in asdict(qlora).items()
            if key.startswith(_SHAPES_BASE) and key not in _APART
        },
    }


def _device_identity(model: CausalModelConfig, qlora: QLoraConfig) -> dict[str, Any]:
    """What names the stored small model: weights are cast to the compute type, then quantised."""
    computed = qlora.compute_dtype
    cast = {} if computed == model.dtype else {"compute_dtype": computed}
    return {**model_key(model, qlora), **cast}


def _examples_key(tuning: PublicTuning) -> dict[str, Any]:
    return {
        "task": asdict(tuning.task),
        "public": tuning.public.content_hash,
        "seed": tuning.seed,
        **({"rag": [tuning.rag_items, tuning.rag_max_tokens]} if tuning.rag_items else {}),
    }


def _with_cloud_settings(tuning: PublicTuning) -> PublicTuning:
    """M_cloud's own settings of tuning in the place of M_base's, where it has some."""
    qlora = tuning.qlora
    own: dict[str, Any] = {
        f"base_{name}": value
        for name in CLOUD_SETTINGS
        if (value := getattr(qlora, f"cloud_{name}")) is not None
    }
    return replace(tuning, qlora=replace(qlora, **own))


def _build(
    model: CausalModelConfig, tuning: PublicTuning, folder: Path, progress: Progress
) -> None:
    from models import loading

    tokenizer = loading.configured_tokenizer(model)
    tuned, losses = tune(model, tuning, "base", tokenizer, _examples(tuning, tokenizer), progress)
    _store(tuned.merge_and_unload(), tokenizer, tuning, folder, {"losses": list(losses)})


def _build_untuned(model: CausalModelConfig, tuning: PublicTuning, folder: Path) -> None:
    from models import loading

    tokenizer = loading.configured_tokenizer(model)
    _store(loading.load_causal(model, tuning.device), tokenizer, tuning, folder, {})


def _build_cloud(
    model: CausalModelConfig, tuning: PublicTuning, folder: Path, progress: Progress
) -> None:
    from models import loading, lora

    tokenizer = loading.configured_tokenizer(model)
    tuned, losses = tune(model, tuning, "cloud", tokenizer, _examples(tuning, tokenizer), progress)
    with atomic.new_folder(folder, {"losses": list(losses)}) as made:
        lora.save(tuned, made)


def _store(
    model: Any, tokenizer: Any, tuning: PublicTuning, folder: Path, marker: dict[str, Any]
) -> None:
    """Quantise ``model`` and store it as devices download it."""
    from models import loading

    with TemporaryDirectory() as plain, atomic.new_folder(folder, marker) as made:
        model.save_pretrained(plain)
        tokenizer.save_pretrained(made)
        marker["bytes"] = loading.quantise_folder(plain, made, tuning.qlora, tuning.device)


def _examples(tuning: PublicTuning, tokenizer: Any) -> list[tuple[Prompt, str]]:
    """Public users' queries with gold answers and pairs of their profiles, at most the limit."""
    task, users = tasks.task(tuning.task), public_users.read(tuning.public)
    asked: list[tuple[UserHistory, Query | Pair]] = [
        (user, query) for user in users for query in user.queries
    ]
    asked += [(user, pair) for user in users for pair in user.pairs]
    limit = tuning.qlora.base_max_records
    if limit is not None and len(asked) > limit:
        asked = Random(derive_seed(tuning.seed, "base", "records")).sample(asked, limit)
    drawn = Random(derive_seed(tuning.seed, "base", "retrieved"))
    examples = []
    for user, each in asked:
        if isinstance(each, Pair):
            prompt, completion = tasks.training_example(task, each)
        else:
            prompt, completion = tasks.as_prompt(task, each.input), each.gold
        if tuning.rag_items and drawn.random() < RAG_SHARE:
            prompt = _with_records(tuning, task, user, each, tokenizer) or prompt
        examples.append((prompt, completion))
    return examples


def _with_records(
    tuning: PublicTuning, task: Task, user: UserHistory, asked: Query | Pair, tokenizer: Any
) -> Prompt | None:
    """The prompt with the user's own other records; None where a record is not asked as trained."""
    if isinstance(asked, Pair):
        if not task.asks_as_trained:
            return None
        query = as_query(user.user_id, task, asked)
    else:
        query = asked
    return prompt_with_items(
        task,
        query,
        tuple(pair for pair in user.pairs if pair is not asked),
        tokenizer,
        items=tuning.rag_items,
        max_tokens=tuning.rag_max_tokens,
    )
