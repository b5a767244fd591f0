"""LoRA tuning of a whole model in the cloud, on texts of the public users alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf.schema import CausalModelConfig, QLoraConfig, TaskConfig
from conf.seeds import derive_seed
from lamp.records import Prompt
from strategy.progress import Progress
from strategy.public import PublicUsers

if TYPE_CHECKING:  # these load torch
    from models.multi_lora.cohort import CohortJob
    from models.training import TrainReport

Example = tuple[str | Prompt, str]  # prompt, completion


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicTuning:
    """What all tuning on the public users depends on, and where it is kept.

    Attributes:
        task: Task of the records.
        qlora: Shape of the adapters, and by its ``base_`` keys the schedule.
        public: The public users.
        cache: Folder below which tuned models are stored.
        seed: Root seed.
        device: Torch device of the work.
        rag_items: Records of the public user's own profile that stand in every second prompt.
        rag_max_tokens: Length of these records together.
    """

    task: TaskConfig
    qlora: QLoraConfig
    public: PublicUsers
    cache: Path
    seed: int = 0
    device: str = "cpu"
    rag_items: int = 0
    rag_max_tokens: int = 256


def tune(
    model: CausalModelConfig,
    tuning: PublicTuning,
    purpose: str,
    tokenizer: Any,
    examples: Sequence[Example],
    progress: Progress,
) -> tuple[Any, tuple[float, ...]]:
    """LoRA-tune a model by the ``base_`` settings of ``tuning.qlora``.

    Args:
        model: The model.
        tuning: Settings, seed and device; its public users are not read.
        purpose: Sets the seeds of this tuning apart from others, and names it in the progress.
        tokenizer: The model's tokenizer.
        examples: Prompts with the completions to learn.
        progress: Where progress is told.

    Returns:
        The model, its adapter still apart from it, and the loss of each step in nats per scored
        token.
    """
    from models import loading, lora, training
    from models.chat import encode_example
    from models.multi_lora.cohort import CohortJob

    qlora, system = tuning.qlora, model.system_prompt
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
    seed = derive_seed(tuning.seed, purpose)
    tuned = lora.attach(loading.load_causal(model, tuning.device), qlora, seed)
    job = CohortJob(
        examples=encoded,
        schedule=schedule,
        adapter_seed=seed,
        batch_seed=derive_seed(tuning.seed, purpose, "batches"),
    )
    phase = f"M_{purpose}"
    report = train_in_cloud(tuned, tokenizer.pad_token_id, job, qlora, phase, phase, progress)
    return tuned, report.losses


def train_in_cloud(
    model: Any,
    pad_id: int,
    job: CohortJob,
    qlora: QLoraConfig,
    what: str,
    phase_name: str,
    progress: Progress,
) -> TrainReport:
    """Train one adapter, left in the model's slot, and tell how it goes.

    Where memory ran out on the way, ``what`` is named with how often.
    """
    from models.multi_lora.cohort import train_one

    checkpointing = qlora.gradient_checkpointing
    with progress.phase(phase_name, job.schedule.steps) as phase:
        report = train_one(
            model, pad_id, job, lambda *_: phase.advance(), checkpointing=checkpointing
        )
    if report.reductions:
        times = "once" if report.reductions == 1 else f"{report.reductions} times"
        progress.note(f"{what}: memory ran out {times}; trained on in smaller micro-batches")
    return report
