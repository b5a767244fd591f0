"""What a run will hold in memory, from the networks' shapes: a part of ``--dry-run``."""

from __future__ import annotations

import os
from dataclasses import dataclass

from conf.schema import Config
from lamp.dataset import LampData
from models import memory
from models.multi_lora.cohort import ACTIVATION_BYTES
from models.shape import Shape
from sim.run.counts import prompt_tokens, record_tokens, scorer_of
from sim.run.times import encoder_weights, judge_weights, tunes_base, tunes_cloud, writes_itself

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
GIB = 1 << 30
CARDS = (24, 80)  # GiB


@dataclass(frozen=True, slots=True)
class Held:
    """What one process of a run holds.

    Attributes:
        what: Whose process it is, or what is at work in it.
        plan: None where the network's shape is not known.
        by_device: Whether a device's process holds it.
    """

    what: str
    plan: memory.Plan | None
    by_device: bool = False

    @property
    def bytes(self) -> int:
        """All of it; 0 where it is not known."""
        return 0 if self.plan is None else self.plan.total


def memory_lines(
    config: Config, data: LampData, device: Shape | None, cloud: Shape | None, processes: int
) -> list[str]:
    """Say what each process of a run holds, and whether this machine holds them.

    Args:
        config: The run.
        data: Its data.
        device: Shape of the device model; None where only the hub knows it.
        cloud: As ``device``, of the cloud model.
        processes: Devices that work at the same time.
    """
    own = machine_bytes(config.resources.client_gpus > 0)
    servers = machine_bytes(config.resources.cloud_device != "cpu")
    return [
        memory_line(
            each.what,
            each.plan,
            own if each.by_device else servers,
            processes if each.by_device else 1,
        )
        for each in held(config, data, device, cloud)
    ]


def held(config: Config, data: LampData, device: Shape | None, cloud: Shape | None) -> list[Held]:
    """Plan what each process of a run holds, in the order of the run; as :func:`memory_lines`."""
    tokens = record_tokens(config, data.targets)
    plan = device_plan(config, device, tokens) if device else None
    found = [Held("a device process that trains", plan, by_device=True)]
    if tunes_base(config):
        plan = tuning_plan(config, device, tokens, "device") if device else None
        found.append(Held("M_base while it is tuned", plan))
    if tunes_cloud(config):
        plan = tuning_plan(config, cloud, tokens, "cloud") if cloud else None
        found.append(Held("M_cloud while it is tuned", plan))
    if writes_itself(config):
        plan = cloud_plan(config, cloud, prompt_tokens(config, data)) if cloud else None
        found.append(Held("the cloud model that writes", plan))
        if config.model.build is None:
            judge = memory.Plan(weights=4 * judge_weights(config))
            found.append(Held("the judge, beside it", judge))
    if (path := scorer_of(config)) is not None:
        scorer = memory.Plan(weights=4 * encoder_weights(path))
        found.append(Held("BERTScore's encoder", scorer, by_device=True))
    return found


def machine_bytes(gpu: bool) -> int:
    """Memory of this machine, or of its first GPU; 0 where there is none."""
    if not gpu:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    import torch

    if not torch.cuda.is_available():
        return 0
    return int(torch.cuda.get_device_properties(0).total_memory)


def device_plan(config: Config, shape: Shape, record_tokens: float) -> memory.Plan:
    """Plan one device process: a cohort's step, in micro-batches as the engine makes them."""
    qlora = config.qlora
    return _training(
        config,
        shape,
        record_tokens,
        itemsize=BYTES[qlora.compute_dtype],
        records=qlora.batch_size,
        users=cohort_size(config),
        form="twin" if qlora.dequantise_once else "nf4",
    )


def tuning_plan(config: Config, shape: Shape, record_tokens: float, which: str) -> memory.Plan:
    """Plan the tuning of the "cloud" or the "device" model on the public users."""
    qlora = config.qlora
    own = qlora.cloud_batch_size if which == "cloud" else None
    return _training(
        config,
        shape,
        record_tokens,
        itemsize=BYTES[getattr(config.model, which).dtype],
        records=own or qlora.base_batch_size,
        users=1,
        form="plain",
    )


def _training(
    config: Config,
    shape: Shape,
    record_tokens: float,
    *,
    itemsize: int,
    records: int,
    users: int,
    form: memory.Form,
) -> memory.Plan:
    width, wanted = int(record_tokens), config.qlora.gradient_checkpointing is True
    most = ACTIVATION_BYTES // memory.token_bytes(shape, itemsize, checkpointed=wanted)
    tokens = min(users * records * width, max(width, most))
    return memory.training(
        shape,
        rank=config.qlora.rank,
        itemsize=itemsize,
        tokens=tokens,
        scored=tokens,
        width=width,
        users=users,
        form=form,
        double_quant=config.qlora.double_quant,
        checkpointed=wanted,
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


def memory_line(what: str, plan: memory.Plan | None, here: int = 0, processes: int = 1) -> str:
    """Say what a plan takes, which cards are too small for it, and whether it fits here.

    Args:
        what: Whose plan it is.
        plan: None where the network's shape is not known.
        here: Bytes of the memory in which it would lie on this machine; 0 if unknown.
        processes: How many of them work at the same time.
    """
    if plan is None:
        return f"memory of {what}: unknown until the checkpoint is here"
    parts = ", ".join(
        f"{name} {size / GIB:.2f}"
        for name in ("weights", "adapters", "optimizer", "activations", "logits", "cache")
        if (size := getattr(plan, name)) >= GIB / 200
    )
    small = [f"{card} GiB" for card in CARDS if plan.total > card * GIB]
    refused = f"; does not fit {' or '.join(small)}" if small else ""
    if here and plan.total * processes > here:
        many = f"{processes} of them do" if processes > 1 else "does"
        refused += f"; {many} NOT FIT the {here / GIB:.1f} GiB here"
    return f"memory of {what}: {plan.total / GIB:.2f} GiB ({parts}){refused}"


def cohort_size(config: Config) -> int:
    """Users that train at once; "auto" is not resolved before the models are there."""
    return config.qlora.cohort if isinstance(config.qlora.cohort, int) else 1
