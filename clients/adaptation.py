"""Private adaptation: QLoRA on D_u and what was downloaded; only numbers leave the device.

The one exception is a federated recipe, whose adapter goes to the server to be averaged.

Seeds depend on the run's root seed and the user, not on the arm: arms differ in their data alone,
so cdcda with nothing shared is direct_ft to the last byte, and paired comparisons carry less noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import torch

from clients import adapters, outbound, private_budget
from clients.base import Base
from clients.capacity import (
    activation_budget,
    checkpointing_of,
    require_capacity,
    training_memory_bytes,
)
from clients.dac24.stream import adapt_to_stream
from clients.folder import Device
from clients.gate import Fold, is_better, make_folds
from clients.local_data import added_pairs, near_records, own_texts
from conf.seeds import derive_seed
from lamp import tasks
from models import lora, training
from models.chat import Encoded, encode_pairs
from models.distillation import taught
from models.multi_lora.cohort import (
    ACTIVATION_BYTES,
    Checkpointing,
    CohortJob,
    CohortResult,
    train_one,
    train_shrinking,
)
from models.multi_lora.stacked import NotStackableError
from models.private_training import (
    Draws,
    Guarantee,
    SeededDraws,
    SystemDraws,
    train_privately,
)
from models.save_point import SavePoint
from protocol.codec import Arrays
from protocol.messages import AdaptReply, AdaptRequest
from protocol.recipe import Recipe, recipe_from_json
from protocol.settings import DeviceSettings
from storage.hashing import hash_json


@dataclass(frozen=True, slots=True)
class PreparedTraining:
    """What one user's adapter is trained on, before any weight moves.

    Attributes:
        job: Examples (D_u first, then what is added to it), schedule, seeds and first weights.
        guarantee: What DP-SGD is to keep; None trains without.
        records: Per record of D_u the places of its examples, for DP-SGD.
        draws: Where DP-SGD's draws and noise come from.
        folds: Trainings that decide whether the adapter is used; empty uses it always.
        activation_bytes: What the activations of a forward pass may take on the device.
        checkpointing: Whether gradients are checkpointed (:class:`conf.schema.QLoraConfig`).
    """

    job: CohortJob
    guarantee: Guarantee | None = None
    records: tuple[tuple[int, ...], ...] = ()
    draws: Draws | None = None
    folds: tuple[Fold, ...] = ()
    activation_bytes: int = ACTIVATION_BYTES
    checkpointing: Checkpointing = "auto"


def adapt(
    device: Device, base: Base, request: AdaptRequest, settings: DeviceSettings
) -> AdaptReply:
    """Train and store the adapter of one arm (Eq. 5: cross-entropy on D_u and the kept pairs).

    A recipe with a stream goes its own way: it trains on a few records, several times.

    Raises:
        ModelError: If the device has no room for it, or a loss is not finite.
    """
    stream = recipe_from_json(request.recipe).stream
    if stream is not None:
        private_budget.let_plain(device)
        return adapt_to_stream(device, base, request, settings, stream)
    what = prepare(device, base, request, settings)
    saved = _save_point(device, request, what, settings)
    result = train_gated(base, what) if what.folds else train_alone(base, what, saved)
    reply = finish(device, base, request, what, result)
    if saved is not None:
        saved.path.unlink(missing_ok=True)
    return reply


def _save_point(
    device: Device, request: AdaptRequest, what: PreparedTraining, settings: DeviceSettings
) -> SavePoint | None:
    """Where the training keeps its place; private ones, with arrays in the message, keep none."""
    qlora, job = settings.qlora, what.job
    if not qlora.save_every or what.guarantee or what.folds or job.start or request.logits:
        return None
    examples = [[example.input_ids, example.labels] for example in job.examples]
    seeds = [job.adapter_seed, job.batch_seed]
    key = hash_json([request.base_id, asdict(qlora), asdict(job.schedule), seeds, examples])
    adapters.adapter_folder(device, request.adapter_name)  # refuses what is no plain name
    path = device.folder / "jobs" / f"{request.adapter_name}.place.safetensors"
    return SavePoint(path, key, qlora.save_every)


def prepare(
    device: Device, base: Base, request: AdaptRequest, settings: DeviceSettings
) -> PreparedTraining:
    """Gather what the request and its recipe ask for.

    Raises:
        ModelError: If the device has no room for it.
        DataError: If EDA needs WordNet and it is not on the device.
    """
    recipe, user = recipe_from_json(request.recipe), device.user_id
    outbound.check_recipe(device, recipe)
    examples = _with_teacher(device, base, request, _examples(device, base, request, settings))
    longest, private = _longest(examples), recipe.epsilon is not None
    wanted = False if private else settings.qlora.gradient_checkpointing  # that loop has none
    checkpointing = checkpointing_of(device, base, longest, wanted)
    checkpointed = checkpointing is True
    require_capacity(device, base, longest, checkpointed=checkpointed)
    own = () if recipe.federated else (user,)  # a federated adapter starts alike on all devices
    later = (recipe.round,) if recipe.round else ()
    epochs = recipe.epochs or settings.qlora.epochs
    job = CohortJob(
        examples=examples,
        schedule=training.user_schedule(
            replace(settings.qlora, epochs=epochs), len(examples) + request.extra_records
        ),
        adapter_seed=derive_seed(request.seed, *own, "adapter"),
        batch_seed=derive_seed(request.seed, user, "batches", *later),
        start=_start(base, request),
        distillation=recipe.distillation,
    )
    if private:
        return _private(device, request, recipe, job)
    private_budget.let_plain(device)
    return PreparedTraining(
        job,
        folds=make_folds(
            job, _by_record(device, request)[: len(device.history.pairs)], recipe.folds
        ),
        activation_bytes=activation_budget(device, base, longest, checkpointed=checkpointed),
        checkpointing=checkpointing,
    )


def _by_record(device: Device, request: AdaptRequest) -> tuple[tuple[int, ...], ...]:
    """Per record the places of its examples: its own and those of the kept pairs made from it.

    The records of D_u stand first, in their order.
    """
    places: dict[str, list[int]] = {
        pair.id: [place] for place, pair in enumerate(device.history.pairs)
    }
    for place, pair in enumerate(request.kept, start=len(places)):
        places.setdefault(pair.id.rpartition("/")[0], []).append(place)
    return tuple(tuple(each) for each in places.values())


def _private(
    device: Device, request: AdaptRequest, recipe: Recipe, job: CohortJob
) -> PreparedTraining:
    """The same job under DP-SGD; its draws are fresh and shared with no other training.

    As many steps as the records alone would take: a record's examples are drawn together.
    """
    records = _by_record(device, request)
    steps = training.steps_for(len(records), job.schedule.batch_size, 1) * _epochs(job)
    guarantee = Guarantee(recipe.epsilon or 0.0, recipe.delta, recipe.record_clip)
    private_budget.spend(device, guarantee, len(records), job.schedule.batch_size, steps)
    return PreparedTraining(
        replace(job, schedule=replace(job.schedule, steps=steps)),
        guarantee=guarantee,
        records=records,
        draws=_draws(device, request, recipe, job),
    )


def _draws(device: Device, request: AdaptRequest, recipe: Recipe, job: CohortJob) -> Draws:
    """The operating system's; in a simulation ones that the device's secret repeats."""
    if device.policy.noise == "system":
        return SystemDraws()
    named = (request.adapter_name, request.recipe, str(recipe.round))
    return SeededDraws(derive_seed(job.batch_seed, device.secret.hex(), "private", *named))


def _epochs(job: CohortJob) -> int:
    per_epoch = training.steps_for(len(job.examples), job.schedule.batch_size, 1)
    return job.schedule.steps // per_epoch if per_epoch else 0


def finish(
    device: Device, base: Base, request: AdaptRequest, what: PreparedTraining, result: CohortResult
) -> AdaptReply:
    """Store the trained adapter and tell what training took.

    Raises:
        ModelError: If training failed.
    """
    if result.error is not None:
        raise result.error
    report = result.report
    facts = {
        "base_id": request.base_id,
        "steps": report.steps,
        adapters.SOURCES: shared_sources(request),
        adapters.PRIVATE: what.guarantee is not None,
    }
    stored = adapters.store(device, request.adapter_name, base.model, facts, result.state)
    federated = recipe_from_json(request.recipe).federated
    return AdaptReply(
        user_id=device.user_id,
        arm=request.arm,
        steps=report.steps,
        records=len(device.history.pairs),
        synthetic=len(what.job.examples) - len(device.history.pairs),
        losses=() if what.guarantee else report.losses,  # these carry no noise
        tokens=0 if what.guarantee else report.tokens,
        seconds=report.seconds,
        peak_memory_bytes=training_memory_bytes(
            base, _longest(what.job.examples), checkpointed=what.checkpointing is True
        ),
        adapter_bytes=stored,
        weights=_numpy(result.state) if federated else {},
        shortened=sum(example.shortened for example in what.job.examples),
        gate=int(any(map(torch.any, result.state.values()))) if what.folds else -1,
        reductions=report.reductions,
    )


def shared_sources(request: AdaptRequest) -> list[str]:
    """Ids of the shared records behind what the message brings; the device notes them."""
    written = {pair.id.rpartition("/")[0] for pair in request.kept}  # "<shared id>/<sample index>"
    return sorted(written | set(request.logits))


def train_alone(base: Base, what: PreparedTraining, saved: SavePoint | None = None) -> CohortResult:
    """Train one user alone; a private training has a loop of its own, record by record."""
    job, pad_id = what.job, base.tokenizer.pad_token_id
    if what.guarantee is None or what.draws is None:
        report = train_one(
            base.model,
            pad_id,
            job,
            saved=saved,
            activation_bytes=what.activation_bytes,
            checkpointing=what.checkpointing,
        )
        return CohortResult(report, lora.snapshot(base.model))
    if job.start:
        lora.fill(base.model, job.start, "of the message")
    else:
        lora.reset(base.model, job.adapter_seed)
    report = train_privately(
        base.model,
        pad_id,
        [[job.examples[place] for place in record] for record in what.records],
        job.schedule,
        what.guarantee,
        what.draws,
        job.batch_seed,
    )
    return CohortResult(report, lora.snapshot(base.model))


def train_gated(base: Base, what: PreparedTraining) -> CohortResult:
    """Train the whole and its folds as one cohort; an adapter that does not help becomes none."""
    jobs = [what.job, *(fold.job for fold in what.folds)]
    result, *others = _together(base, jobs, what)
    for each in (result, *others):
        if each.error is not None:
            return replace(result, error=each.error)
    if is_better(base, what.folds, [each.state for each in others]):
        return result
    return replace(result, state=lora.zeros(base.model))


def _together(
    base: Base, jobs: Sequence[CohortJob], what: PreparedTraining
) -> Sequence[CohortResult]:
    budget = what.activation_bytes
    try:
        return train_shrinking(base.model, jobs, budget, what.checkpointing)
    except NotStackableError:
        pad_id = base.tokenizer.pad_token_id
        return [
            CohortResult(
                train_one(base.model, pad_id, job, activation_bytes=budget),
                lora.snapshot(base.model),
            )
            for job in jobs
        ]


def _start(base: Base, request: AdaptRequest) -> dict[str, torch.Tensor] | None:
    """The first weights that came with the message, if any."""
    tensors = {name: torch.from_numpy(array) for name, array in request.weights.items()}
    if tensors:
        lora.require_fit(base.model, tensors, f"for {request.arm}")
    return tensors or None


def _with_teacher(
    device: Device, base: Base, request: AdaptRequest, examples: list[Encoded]
) -> list[Encoded]:
    """The examples, with what the teacher says of them where the message brings it.

    D_u stands first.
    """
    teacher = {
        index: torch.from_numpy(request.logits[pair.id])
        for index, pair in enumerate(device.history.pairs)
        if pair.id in request.logits
    }
    return taught(examples, teacher, base.model.config.vocab_size) if teacher else examples


def _longest(examples: Sequence[Encoded]) -> int:
    return max((len(example.input_ids) for example in examples), default=1)


def _numpy(weights: Mapping[str, torch.Tensor]) -> Arrays:
    return {name: weight.detach().cpu().numpy() for name, weight in weights.items()}


def _examples(
    device: Device, base: Base, request: AdaptRequest, settings: DeviceSettings
) -> list[Encoded]:
    recipe, system = recipe_from_json(request.recipe), settings.system_prompt
    task = tasks.task(settings.task)
    made = (
        *added_pairs(device, recipe, request.seed),
        *own_texts(device, base, recipe, request.seed, system),
        *near_records(device, recipe, task, request.public),
    )
    return encode_pairs(
        base.tokenizer,
        task,
        (*device.history.pairs, *request.kept, *made),
        system=system,
        max_len=settings.qlora.max_seq_len,
    )
