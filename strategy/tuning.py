"""LoRA tuning of a whole model in the cloud, on texts of the public users alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from conf.schema import CausalModelConfig, Config
from conf.seeds import derive_seed
from lamp.records import Prompt
from strategy.progress import Progress

Example = tuple[str | Prompt, str]  # prompt, completion


def tune(
    config: Config,
    which: CausalModelConfig,
    purpose: str,
    tokenizer: Any,
    examples: Sequence[Example],
    progress: Progress,
) -> tuple[Any, tuple[float, ...]]:
    """LoRA-tune a model by the ``base_`` settings of the configuration's ``qlora``.

    Args:
        config: The run.
        which: The model.
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
    from models.multi_lora.cohort import CohortJob, train_one

    qlora, system = config.qlora, which.system_prompt
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
    seed = derive_seed(config.seed, purpose)
    model = lora.attach(loading.load_causal(which, config.resources.cloud_device), qlora, seed)
    job = CohortJob(
        examples=encoded,
        schedule=schedule,
        adapter_seed=seed,
        batch_seed=derive_seed(config.seed, purpose, "batches"),
    )
    with progress.phase(f"M_{purpose}", schedule.steps) as phase:
        report = train_one(model, tokenizer.pad_token_id, job, lambda *_: phase.advance())
    return model, report.losses
