"""Offline answering: the device answers its own queries and reports numbers.

Evaluation decodes greedily; the gold answers lie on the device, so the server sees neither query
nor answer. ``answer_text`` serves a user's free question from the same adapter.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from clients import adapters, gguf_files
from clients.base import Base
from clients.capacity import require_capacity
from clients.folder import Device
from lamp import tasks
from lamp.records import Prompt
from models import lora
from models.answering import answer_queries
from models.generation import Generation
from protocol.answers import greedy, prompts, scored_replies
from protocol.messages import AnswerReply, AnswerRequest
from protocol.settings import DeviceSettings


def answer(
    device: Device, base: Base, request: AnswerRequest, settings: DeviceSettings
) -> AnswerReply:
    """Answer all scored queries of the user and measure the answers against the gold ones."""
    require_capacity(device, base)
    if request.weights:
        _keep(device, base, request)
    (reply,) = answer_together([device], base, request, settings)
    return reply


def answer_together(
    devices: Sequence[Device], base: Base, request: AnswerRequest, settings: DeviceSettings
) -> list[AnswerReply]:
    """Answer the queries of several devices of one simulation, each with its own adapter."""
    started = time.perf_counter()
    users = [device.history for device in devices]
    asked = [prompts(user, settings, base.tokenizer, request.retrieved) for user in users]
    answers = _decode(devices, base, request.adapter_name, asked, settings)
    return scored_replies(users, request.arm, answers, settings, time.perf_counter() - started)


def answer_text(
    device: Device, base: Base, arm: str | None, prompt: str, settings: DeviceSettings
) -> str:
    """Answer one free question with the adapter of ``arm`` (None: with M_base alone)."""
    return answer_alone(device, base, arm, prompt, settings).text


def answer_alone(
    device: Device, base: Base, arm: str | None, prompt: str, settings: DeviceSettings
) -> Generation:
    """As :func:`answer_text`, with the number of tokens."""
    asked = tasks.as_prompt(tasks.task(settings.task), prompt)
    return _decode([device], base, arm, [[asked]], settings)[0][0]


def _keep(device: Device, base: Base, request: AnswerRequest) -> None:
    """Keep the averaged weights of the message as the device's adapter."""
    tensors = {name: torch.from_numpy(array) for name, array in request.weights.items()}
    lora.fill(base.model, tensors, f"for {request.arm}")
    name = request.adapter or request.arm
    adapters.store(device, name, base.model, {"base_id": request.base_id, "averaged": True})


def _decode(
    devices: Sequence[Device],
    base: Base,
    arm: str | None,
    asked: Sequence[Sequence[Prompt]],
    settings: DeviceSettings,
) -> list[list[Generation]]:
    if settings.evaluation.runtime == "llamacpp":
        weights = settings.evaluation.weights
        return [
            gguf_files.answer(device, base.folder, arm, own, settings, weights)
            for device, own in zip(devices, asked, strict=True)
        ]
    return answer_queries(
        base.model,
        base.tokenizer,
        asked,
        [None if arm is None else adapters.read(device, arm, base.model) for device in devices],
        sampling=greedy(settings),
        batch_size=settings.evaluation.batch_size,
        system=settings.system_prompt,
        merge=settings.evaluation.merge_adapters,
    )
