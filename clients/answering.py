"""Offline answering: the device answers its own queries and reports numbers.

Evaluation decodes greedily; the gold answers lie on the device, so the server sees neither query
nor answer. ``answer_text`` serves a user's free question from the same adapter.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext

import torch

from clients import adapters, gguf_files
from clients.base import Base
from clients.capacity import require_capacity
from clients.folder import Device
from lamp import tasks
from lamp.records import Prompt
from models import lora
from models.generation import Generation, generate
from protocol.answers import greedy, prompts, scored_reply
from protocol.messages import AnswerReply, AnswerRequest
from protocol.settings import DeviceSettings


def answer(
    device: Device, base: Base, request: AnswerRequest, settings: DeviceSettings
) -> AnswerReply:
    """Answer all scored queries of the user and measure the answers against the gold ones."""
    started = time.perf_counter()
    require_capacity(device, base, training=False)
    if request.weights:
        _keep(device, base, request)
    asked = prompts(device.history, settings, base.tokenizer, request.retrieved)
    generations = _decode(device, base, request.adapter_name, asked, settings)
    return scored_reply(
        device.history,
        request.arm,
        [generation.text for generation in generations],
        settings,
        seconds=time.perf_counter() - started,
        tokens=sum(generation.tokens for generation in generations),
        shortened=sum(generation.shortened for generation in generations),
    )


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
    return _decode(device, base, arm, [asked], settings)[0]


def _keep(device: Device, base: Base, request: AnswerRequest) -> None:
    """Keep the averaged weights of the message as the device's adapter."""
    tensors = {name: torch.from_numpy(array) for name, array in request.weights.items()}
    lora.fill(base.model, tensors, f"for {request.arm}")
    name = request.adapter or request.arm
    adapters.store(device, name, base.model, {"base_id": request.base_id, "averaged": True})


def _decode(
    device: Device, base: Base, arm: str | None, asked: Sequence[Prompt], settings: DeviceSettings
) -> list[Generation]:
    if settings.evaluation.runtime == "llamacpp":
        return gguf_files.answer(
            device, base.folder, arm, asked, settings, settings.evaluation.weights
        )
    if arm is not None:
        adapters.load_into(device, arm, base.model)
    with nullcontext() if arm is not None else lora.disabled(base.model):
        return generate(
            base.model,
            base.tokenizer,
            asked,
            seeds=[0] * len(asked),  # greedy: nothing is drawn
            sampling=greedy(settings),
            batch_size=settings.evaluation.batch_size,
            system=settings.system_prompt,
        )
