"""``privacy.select=dac24``: the user shares first what the DAC'24 scores find most telling.

Three scores give one order: a record counts as much as its weakest score, each as its rank among
the user's records; that is the paper's "all three higher" for a whole history. No paper orders a
history so. The order is made once, at the first request, and kept in the device's folder: whatever
lexicons or model a later request brings, the records that leave stay one prefix of one order.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from clients.dac24.buffer import Buffer, BufferEntry
from conf.errors import ProtocolError
from storage import atomic

if TYPE_CHECKING:
    from clients.base import Base
    from clients.folder import Device
    from protocol.recipe import Stream
    from protocol.settings import DeviceSettings

ORDER = "usefulness.json"


def keep_order(device: Device, base: Base, stream: Stream, settings: DeviceSettings) -> None:
    """Score the user's records and keep their order, unless that was done before."""
    from clients.dac24.stream import describe

    path = device.folder / ORDER
    if path.is_file() or not device.history.pairs:
        return
    records = describe(device.history.pairs, base, stream, settings)
    atomic.write_json(path, places(records))


def read_order(folder: Path) -> Mapping[str, int]:
    """The place of every record, 0 for the most useful one.

    Raises:
        ProtocolError: If the records were not scored yet.
    """
    try:
        found: dict[str, int] = json.loads((folder / ORDER).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ProtocolError(
            f"{folder.name}: this user shares by usefulness, which takes a base model to score by; "
            "score the records at set-up"
        ) from error
    return found


def places(records: Sequence[BufferEntry]) -> dict[str, int]:
    """The place of every record by its weakest score; equal ones have the same place."""
    whole = Buffer(len(records), max(record.num_bytes for record in records))
    for record in records:
        whole.put(record)
    weakest = np.min(
        [
            _ranks(np.array([record.entropy for record in records])),
            _ranks(np.array([record.domain_score for record in records])),
            _ranks(whole.dissimilarities()),
        ],
        axis=0,
    )
    order = {
        value: place for place, value in enumerate(sorted(set(weakest.tolist()), reverse=True))
    }
    return {
        record.pair.id: order[value]
        for record, value in zip(records, weakest.tolist(), strict=True)
    }


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """How many values are smaller, halves for equal ones."""
    smaller, equal = values[:, None] > values, values[:, None] == values
    ranks: NDArray[np.float64] = smaller.sum(axis=1) + 0.5 * equal.sum(axis=1)
    return ranks
