"""What a run will hold in memory, from the networks' shapes: a part of ``--dry-run``."""

from __future__ import annotations

from conf.schema import Config
from models import memory
from models.multi_lora.cohort import ACTIVATION_BYTES
from models.shape import Shape

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
GIB = 1 << 30
CARDS = (24, 80)  # GiB


def device_plan(config: Config, shape: Shape, record_tokens: float) -> memory.Plan:
    """Plan one device process: a cohort's step, in micro-batches as the engine makes them."""
    qlora = config.qlora
    users, itemsize = cohort_size(config), BYTES[qlora.compute_dtype]
    width = int(record_tokens)
    most = max(width, ACTIVATION_BYTES // memory.token_bytes(shape, itemsize))
    tokens = min(users * qlora.batch_size * width, most)
    return memory.training(
        shape,
        rank=qlora.rank,
        itemsize=itemsize,
        tokens=tokens,
        scored=tokens,
        width=width,
        users=users,
        form="twin" if qlora.dequantise_once else "nf4",
        double_quant=qlora.double_quant,
    )


def cloud_plan(config: Config, shape: Shape, prompt_tokens: float) -> memory.Plan:
    """Plan the cloud model while it writes similar pairs."""
    return memory.answering(
        shape,
        itemsize=BYTES[config.model.cloud.dtype],
        prompts=config.augmenter.batch_size,
        prompt_tokens=int(prompt_tokens),
        new_tokens=config.augmenter.sampling.max_new_tokens,
        form="plain",
    )


def memory_line(what: str, plan: memory.Plan | None) -> str:
    """Say what a plan takes, and which cards are too small for it."""
    if plan is None:
        return f"memory of {what}: unknown until the checkpoint is here"
    parts = ", ".join(
        f"{name} {size / GIB:.2f}"
        for name in ("weights", "adapters", "optimizer", "activations", "logits", "cache")
        if (size := getattr(plan, name)) >= GIB / 200
    )
    small = [f"{card} GiB" for card in CARDS if plan.total > card * GIB]
    refused = f"; does not fit {' or '.join(small)}" if small else ""
    return f"memory of {what}: {plan.total / GIB:.2f} GiB ({parts}){refused}"


def cohort_size(config: Config) -> int:
    """Users that train at once; "auto" is not resolved before the models are there."""
    return config.qlora.cohort if isinstance(config.qlora.cohort, int) else 1
