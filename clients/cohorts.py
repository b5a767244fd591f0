"""Virtual devices of one simulation that share a process's work; each stays its own Flower client.

A cohort is a fixed part of the sorted devices. Whoever of it is asked first trains, or answers, for
all of them in one pass over the shared base, and leaves the others' replies in their own folders,
where their own messages find them. No device's data reaches the server or another device's reply.

Who comes while the cohort is at work waits at a lock that ends with its process. If that process
died, or could not do all at once, the mark that it set stays behind, and everyone works alone: one
user's fault costs the others time and nothing else. A real device is a cohort of itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from clients import adaptation, adapters, answering, folder, jobs
from clients.base import Base
from clients.capacity import require_capacity
from clients.folder import Device
from conf.errors import CdcdaError, ModelError, RunError
from models.multi_lora.cohort import Checkpointing, fitting_size, train_shrinking
from protocol.messages import (
    AdaptReply,
    AnswerReply,
    AnswerRequest,
    CollectRequest,
    QueueReply,
    QueueRequest,
)
from protocol.settings import DeviceSettings
from storage import atomic
from storage.hashing import hash_json
from storage.locks import locked


def queue(device: Device, cohort_folders: Sequence[Path], request: QueueRequest) -> QueueReply:
    """Keep the request for :func:`collect`."""
    adapters.adapter_folder(device, request.adapter_name)  # refuses what is no plain name
    if not adapters.is_current(device, request.adapter_name):
        jobs.drop_reply(device, request.adapter_name)
    jobs.leave(device, request)
    _mark(cohort_folders, request.adapter_name).unlink(missing_ok=True)
    return QueueReply(user_id=device.user_id, arm=request.arm)


def collect(
    device: Device,
    cohort_folders: Sequence[Path],
    base: Base,
    request: CollectRequest,
    settings: DeviceSettings,
) -> AdaptReply:
    """Train what was queued, for the whole cohort if nobody has yet, and tell this device's part.

    Raises:
        RunError: If nothing was queued.
        ModelError: If this device's training failed.
    """
    name = request.adapter_name
    adapters.adapter_folder(device, name)
    with _turn(cohort_folders, name) as together:
        reply = jobs.reply(device, name, AdaptReply)
        if reply is None and together:
            with _marked(cohort_folders, name):
                _train_together(_devices(cohort_folders), base, name, settings)
            reply = jobs.reply(device, name, AdaptReply)
    if reply is None:
        reply = adaptation.adapt(device, base, _queued(device, name), settings)
        jobs.put_reply(device, name, reply)
    return reply


def answer(
    device: Device,
    cohort_folders: Sequence[Path],
    base: Base,
    request: AnswerRequest,
    settings: DeviceSettings,
) -> AnswerReply:
    """Answer the device's queries, together with its cohort's if nobody has yet.

    Raises:
        RunError: If the device has no adapter for the arm.
    """
    # llama.cpp answers one prompt at a time, merged adapters one user
    alone = settings.evaluation.runtime == "llamacpp" or settings.evaluation.merge_adapters
    if request.weights or alone:  # averaged: the device keeps them first
        return answering.answer(device, base, request, settings)
    name = f"answers-{hash_json([request.arm, request.base_id, request.settings])}"
    with _turn(cohort_folders, name) as together:
        reply = _kept_answer(device, name, request)
        if reply is None and together:
            with _marked(cohort_folders, name):
                _answer_together(_devices(cohort_folders), base, request, settings, name)
            reply = _kept_answer(device, name, request)
    if reply is None:
        reply = answering.answer(device, base, request, settings)
    jobs.drop_reply(device, name)
    return reply


@contextmanager
def _turn(cohort_folders: Sequence[Path], name: str) -> Iterator[bool]:
    """Hold the cohort's lock; yields whether it may be tried to work together."""
    mark = _mark(cohort_folders, name)
    atomic.make_folder(mark.parent)
    with locked(mark.with_suffix(".lock")):
        yield len(cohort_folders) > 1 and not mark.exists()


@contextmanager
def _marked(cohort_folders: Sequence[Path], name: str) -> Iterator[None]:
    """Set the mark while the block runs; it stays if the process dies or the work fails."""
    mark = _mark(cohort_folders, name)
    mark.touch()
    try:
        yield
    except (CdcdaError, RuntimeError):  # a broken adapter, no memory: each goes on alone and tells
        return
    mark.unlink()


def _mark(cohort_folders: Sequence[Path], name: str) -> Path:
    return cohort_folders[0] / "jobs" / f"{name}.tried"


def _devices(cohort_folders: Sequence[Path]) -> list[Device]:
    """The cohort's devices; one that cannot be read says so when its own message comes."""
    found = []
    for path in cohort_folders:
        with suppress(CdcdaError):
            found.append(folder.read(path))
    return found


def _train_together(
    devices: Sequence[Device], base: Base, name: str, settings: DeviceSettings
) -> None:
    ready = [work for device in devices if (work := _work(device, base, name, settings))]
    longest = max((len(e.input_ids) for *_, what in ready for e in what.job.examples), default=1)
    size = fitting_size(base.model, longest * settings.qlora.batch_size, settings.gpu_share)
    for start in range(0, len(ready), size):
        part = ready[start : start + size]
        results = train_shrinking(
            base.model,
            [what.job for *_, what in part],
            min(what.activation_bytes for *_, what in part),
            _checkpointing([what for *_, what in part], settings),
        )
        for (device, job, what), result in zip(part, results, strict=True):
            try:
                jobs.put_reply(device, name, adaptation.finish(device, base, job, what, result))
            except ModelError as error:
                jobs.put_error(device, name, error)


def _checkpointing(
    part: Sequence[adaptation.PreparedTraining], settings: DeviceSettings
) -> Checkpointing:
    """Whether a cohort checkpoints its gradients: all do where one of them must."""
    if any(what.checkpointing is True for what in part):
        return True
    return settings.qlora.gradient_checkpointing


def _work(
    device: Device, base: Base, name: str, settings: DeviceSettings
) -> tuple[Device, QueueRequest, adaptation.PreparedTraining] | None:
    """What was queued on the device, ready to be trained; None where there is nothing to do."""
    job = jobs.queued(device, name)
    if job is None or jobs.is_done(device, name):
        return None
    try:
        return device, job, adaptation.prepare(device, base, job, settings)
    except CdcdaError as error:
        jobs.put_error(device, name, error)
        return None


def _answer_together(
    devices: Sequence[Device],
    base: Base,
    request: AnswerRequest,
    settings: DeviceSettings,
    name: str,
) -> None:
    ready = [device for device in devices if _can_answer(device, base, request)]
    replies = answering.answer_together(ready, base, request, settings)
    for device, reply in zip(ready, replies, strict=True):
        jobs.put_reply(device, name, reply, _made_from(device, request))


def _can_answer(device: Device, base: Base, request: AnswerRequest) -> bool:
    """Whether the device's own message would be answered; if not, that message says why."""
    try:
        require_capacity(device, base)
    except ModelError:
        return False
    adapter = request.adapter_name
    return adapter is None or bool(adapters.fingerprint(device, adapter))


def _kept_answer(device: Device, name: str, request: AnswerRequest) -> AnswerReply | None:
    return jobs.reply(device, name, AnswerReply, _made_from(device, request))


def _made_from(device: Device, request: AnswerRequest) -> str:
    """What an answer rests on besides the request: the adapter's weights."""
    name = request.adapter_name
    return "base" if name is None else adapters.fingerprint(device, name)


def _queued(device: Device, name: str) -> QueueRequest:
    request = jobs.queued(device, name)
    if request is None:
        raise RunError(f"user {device.user_id}: nothing is queued for '{name}'; send train.queue")
    return request
