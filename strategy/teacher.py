"""The teacher of rkd_ft: what M_cloud says of shared pairs, as the devices download it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lamp import tasks
from lamp.records import Pair
from protocol.codec import Arrays
from protocol.settings import DeviceSettings
from strategy.large_model import LargeModel
from strategy.progress import Progress
from strategy.taught import StoredLogits

MIB = 1 << 20


def teach(
    shared: Mapping[str, Sequence[Pair]],
    settings: DeviceSettings,
    large: LargeModel,
    progress: Progress,
    run_folder: Path,
) -> StoredLogits:
    """Compute the teacher's logits on every user's shared pairs and write them to the run's folder.

    The text is encoded with the device's own template and length limit, so that the rows fit its
    scored tokens. Of a large vocabulary the most likely tokens travel, and the others' mass
    (:mod:`models.distillation`).

    Returns:
        Per user and pair id what the teacher says, as the message has it.
    """
    from models import lora

    taught = StoredLogits(run_folder)
    lora.fill(large.model, large.adapter, "of M_cloud")
    with progress.phase("teacher logits", sum(map(len, shared.values()))) as phase:
        for user, pairs in shared.items():
            taught.add(user, _logits(pairs, settings, large))
            phase.advance(len(pairs))
    progress.note(f"rkd_ft: {taught.bytes / MIB:,.1f} MiB of teacher logits travel to the devices")
    return taught


def _logits(pairs: Sequence[Pair], settings: DeviceSettings, large: LargeModel) -> Arrays:
    from models.chat import encode_pairs
    from models.distillation import teacher_logits

    examples = encode_pairs(
        large.tokenizer,
        tasks.task(settings.task),
        pairs,
        system=settings.system_prompt,
        max_len=settings.qlora.max_seq_len,
    )
    logits = teacher_logits(
        large.model, examples, large.tokenizer.pad_token_id, settings.qlora.batch_size
    )
    return {pair.id: rows.numpy() for pair, rows in zip(pairs, logits, strict=True)}
