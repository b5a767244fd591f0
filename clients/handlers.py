"""What a device does with a message, apart from how the message came.

The same functions run in Flower's process of one message and in a real device's long-lived trainer
(:mod:`clients.trainer`). They read policy and history from the device's own folder every time, so
neither the server nor whoever hands a message on can widen what the user allows.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flwr.app import RecordDict

from clients import bounds, folder, offline_query, outbound, sent, share_order
from conf.errors import ProtocolError, RunError
from lamp.serialise import record_hash
from protocol.codec import WireMessage, decode
from protocol.messages import (
    AdaptReply,
    AdaptRequest,
    AnswerReply,
    AnswerRequest,
    CollectRequest,
    QueueReply,
    QueueRequest,
    ShareReply,
    ShareRequest,
)
from protocol.recipe import recipe_from_json
from protocol.settings import DeviceSettings, settings_from_json

if TYPE_CHECKING:
    from clients.base import Base


@dataclass(frozen=True, slots=True)
class Place:
    """Where a device works.

    Attributes:
        folders: Folders of the devices of one simulation; a real device's own alone.
        index: Which of them is this device's.
        bases: Folder of base models by their ids.
        real: Whether it is a real device, which must answer without a server later.
    """

    folders: tuple[Path, ...]
    index: int
    bases: Path
    real: bool

    @property
    def own(self) -> Path:
        """This device's folder."""
        return self.folders[self.index]

    def cohort_folders(self, settings: DeviceSettings) -> tuple[Path, ...]:
        """The folders of the devices that this one works with: every so many-th of all.

        The server asks users in the order of these folders. Neighbours must be of different
        cohorts, else the second process waits for the first to work for both.
        """
        size = settings.qlora.cohort
        if self.real or size == "auto":
            return (self.own,)
        cohorts = math.ceil(len(self.folders) / size)
        return self.folders[self.index % cohorts :: cohorts]


def share(place: Place, content: RecordDict) -> ShareReply:
    """Send the records that the user's consent covers, no more."""
    request = decode(ShareRequest, content)
    device = share_order.fixed(folder.read(place.own))
    granted = outbound.grant(device, request.ratios)
    sent.note_records(device.folder, {pair.id: record_hash(pair) for pair in granted.pairs})
    return ShareReply(
        user_id=device.user_id,
        pairs=granted.pairs,
        counts=granted.counts,
        redactions=granted.redactions,
    )


def adapt(place: Place, content: RecordDict) -> AdaptReply:
    """Train the private adapter of one arm and keep it here."""
    from clients.adaptation import adapt as run  # heavy imports stay out of the driver

    request, device = decode(AdaptRequest, content), folder.read(place.own)
    settings = _settings(device, request)
    bounds.check_request(device, request, recipe_from_json(request.recipe))
    return run(device, _base(place, request.base_id, settings), request, settings)


def queue(place: Place, content: RecordDict) -> QueueReply:
    """Keep what an adapter is to be trained on until it is collected."""
    from clients.cohorts import queue as run

    request, device = decode(QueueRequest, content), folder.read(place.own)
    settings = _settings(device, request)
    bounds.check_request(device, request, recipe_from_json(request.recipe))
    return run(device, place.cohort_folders(settings), request)


def collect(place: Place, content: RecordDict) -> AdaptReply:
    """Train what was queued, on a simulation's device together with its cohort."""
    from clients.cohorts import collect as run

    request, device = decode(CollectRequest, content), folder.read(place.own)
    settings = _settings(device, request)
    base = _base(place, request.base_id, settings)
    return run(device, place.cohort_folders(settings), base, request, settings)


def answer(place: Place, content: RecordDict) -> AnswerReply:
    """Answer the user's own queries offline and report numbers."""
    from clients.cohorts import answer as run

    request, device = decode(AnswerRequest, content), folder.read(place.own)
    settings = _settings(device, request)
    _check_privacy(device, request)
    base = _base(place, request.base_id, settings)
    return run(device, place.cohort_folders(settings), base, request, settings)


def _check_privacy(device: folder.Device, request: AnswerRequest) -> None:
    """Answers by a plain adapter, or with records in the prompt, void what private ones state."""
    from clients import adapters, private_budget

    name = request.adapter_name
    if request.retrieved or (name is not None and not adapters.is_private(device, name)):
        private_budget.let_plain(device)


HANDLERS: dict[str, Callable[[Place, RecordDict], WireMessage]] = {
    ShareRequest.TYPE: share,
    AdaptRequest.TYPE: adapt,
    QueueRequest.TYPE: queue,
    CollectRequest.TYPE: collect,
    AnswerRequest.TYPE: answer,
}


def needs_model(kind: str) -> bool:
    """Whether the message takes a language model or its libraries."""
    return kind != ShareRequest.TYPE


def _settings(
    device: folder.Device, request: AdaptRequest | CollectRequest | AnswerRequest
) -> DeviceSettings:
    """The settings of a message as far as the device takes them."""
    return bounds.own_settings(device, settings_from_json(request.settings))


def _base(place: Place, base_id: str, settings: DeviceSettings) -> Base:
    importlib.import_module("clients.cohorts")  # as a whole, where a thread is at it already
    from clients.base import load

    if not base_id.isalnum():  # it becomes a path: a server must not choose one
        raise ProtocolError(f"base_id: expected letters and digits, got {base_id[:40]!r}")
    if not (place.bases / base_id).is_dir():
        raise RunError(f"base_id {base_id[:40]}: no such base model here; send query.base first")
    loaded = load(place.bases / base_id, settings.qlora, settings.torch_threads)
    if place.real:
        offline_query.remember(place.own, settings)
    return loaded
