"""Private adaptation: QLoRA on D_u and what was downloaded; only numbers leave the device.

Seeds depend on the run's root seed and the user, not on the arm: arms differ in their data alone,
so cdcda with nothing shared is direct_ft to the last byte, and paired comparisons carry less noise.
"""

from __future__ import annotations

from clients import adapters
from clients.base import Base
from clients.folder import Device
from conf.schema import QLoraConfig
from conf.seeds import derive_seed
from lamp import tasks
from models import lora, training
from models.chat import Encoded, encode_example
from models.quantisation import device_memory_bytes
from protocol.messages import AdaptReply, AdaptRequest
from protocol.settings import DeviceSettings


def adapt(
    device: Device, base: Base, request: AdaptRequest, settings: DeviceSettings
) -> AdaptReply:
    """Train and store the adapter of one arm (Eq. 5: cross-entropy on D_u and the kept pairs)."""
    examples = _examples(device, base, request, settings)
    lora.reset(base.model, derive_seed(request.seed, device.user_id, "adapter"))
    report = training.train(
        base.model,
        base.tokenizer.pad_token_id,
        examples,
        user_schedule(settings.qlora, len(examples) + request.extra_records),
        seed=derive_seed(request.seed, device.user_id, "batches"),
    )
    adapter_bytes = adapters.store(
        device, request.arm, base.model, {"base_id": request.base_id, "steps": report.steps}
    )
    return AdaptReply(
        user_id=device.user_id,
        arm=request.arm,
        steps=report.steps,
        records=len(device.history.pairs),
        synthetic=len(request.kept),
        losses=report.losses,
        tokens=report.tokens,
        seconds=report.seconds,
        peak_memory_bytes=device_memory_bytes(base.model),
        adapter_bytes=adapter_bytes,
    )


def user_schedule(qlora: QLoraConfig, num_records: int) -> training.Schedule:
    """The training schedule of one user's adapter."""
    return training.Schedule(
        steps=training.steps_for(num_records, qlora.batch_size, qlora.epochs),
        batch_size=qlora.batch_size,
        learning_rate=qlora.learning_rate,
        warmup=qlora.warmup,
        clip=qlora.clip,
        weight_decay=qlora.weight_decay,
    )


def _examples(
    device: Device, base: Base, request: AdaptRequest, settings: DeviceSettings
) -> list[Encoded]:
    task = tasks.task(settings.task)
    return [
        encode_example(
            base.tokenizer,
            *tasks.training_prompt(task, pair),
            system=settings.system_prompt,
            max_len=settings.qlora.max_seq_len,
        )
        for pair in (*device.history.pairs, *request.kept)
    ]
