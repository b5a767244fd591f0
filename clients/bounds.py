"""What a device takes from a server: settings and recipes within its own bounds, nothing else.

Task and metric, a BERTScore model and whether texts are shown are the device's own;
what a message says of them is compared or replaced, never opened.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from clients.folder import Device
from clients.policy import Interval
from conf.errors import ProtocolError
from protocol.messages import AdaptRequest
from protocol.recipe import Recipe
from protocol.settings import DeviceSettings


def own_settings(device: Device, settings: DeviceSettings) -> DeviceSettings:
    """The settings by which the device works: the server's within its bounds, else its own.

    Raises:
        ProtocolError: If the task is another one, or a hyperparameter lies outside.
    """
    policy, bounds = device.policy, device.policy.bounds
    if policy.task is None:
        raise ProtocolError(
            f"user {device.user_id}: policy.json names no task; add what the records are for"
        )
    asked = settings.task
    if (asked.name, asked.pair) != (policy.task.name, policy.task.pair):
        raise ProtocolError(
            f"user {device.user_id}: expected the task {policy.task.name}, got {asked.name}"
        )
    qlora = settings.qlora
    _require(
        device,
        max_seq_len=(qlora.max_seq_len, bounds.max_seq_len),
        batch_size=(qlora.batch_size, bounds.batch_size),
        learning_rate=(qlora.learning_rate, bounds.learning_rate),
        epochs=(qlora.epochs, bounds.epochs),
        rank=(qlora.rank, bounds.rank),
        dropout=(qlora.dropout, bounds.dropout),
    )
    shown = settings.evaluation.ship_predictions and "texts" in policy.permits
    evaluation = replace(settings.evaluation, bertscore=policy.bertscore, ship_predictions=shown)
    return replace(settings, task=policy.task, evaluation=evaluation)


def check_request(device: Device, request: AdaptRequest, recipe: Recipe) -> None:
    """Refuse what a message adds to D_u, and a recipe, outside the device's bounds.

    Raises:
        ProtocolError: Naming the first value that lies outside.
    """
    bounds = device.policy.bounds
    _require(
        device,
        added_records=(len(request.kept) + request.extra_records, bounds.added_records),
        epochs=(1 if recipe.epochs is None else recipe.epochs, (1, bounds.epochs[1])),
        k=(recipe.k, bounds.k),
    )
    if recipe.stream is not None:
        _require(device, k=(recipe.stream.settings.sets, bounds.k))


def _require(device: Device, **asked: tuple[float, Interval]) -> None:
    for violation in _violations(asked):
        raise ProtocolError(f"user {device.user_id}: {violation}; bounds stand in policy.json")


def _violations(asked: dict[str, tuple[float, Interval]]) -> Iterator[str]:
    for name, (value, (low, high)) in asked.items():
        if not (math.isfinite(value) and low <= value <= high):
            yield f"{name} must lie in [{low:g}, {high:g}], got {value:g}"
