"""The order in which a device shares its records, fixed at set-up.

The records are ordered once, by what the user chose (at random, by date, by sensitivity, by the
DAC'24 scores) and then by a keyed hash under the device's secret. The order is written to the
device's folder under a lock, before any server is answered, so no request, and no two requests at
once, can choose what leaves first. Records that the user adds later go behind all others.

    <folder>/order.json   record ids, the first to leave first
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

from clients.dac24 import usefulness
from clients.folder import ORDER, Device, read_order
from clients.sensitivity import sensitivity
from conf.schema import Select
from lamp.dates import Key, date_of
from lamp.records import Pair, UserHistory
from storage import atomic
from storage.locks import locked
from storage.text_files import shown


def fixed(device: Device) -> Device:
    """The device with its order, which is made and kept where records have no place yet.

    Raises:
        ProtocolError: If the user shares by scores that were not made at set-up.
        DataError: If the user shares by date and a record has none that can be read.
    """
    if device.order is not None and len(device.order) >= len(device.history.pairs):
        return device
    with locked(device.folder / ".order.lock"):
        found = read_order(device.folder)
        own = replace(device, order=found)
        order = tuple(pair.id for pair in sharing_order(own))
        if order != found:
            atomic.write_json(device.folder / ORDER, list(order))
    return replace(device, order=order)


def sharing_order(device: Device) -> tuple[Pair, ...]:
    """The order in which records are shared; ties are broken by what only the device can compute.

    It does not depend on the file's order. What was fixed once keeps its place.
    """
    known = {name: place for place, name in enumerate(device.order or ())}
    if len(known) >= len(device.history.pairs):
        by_id = {pair.id: pair for pair in device.history.pairs}
        return tuple(by_id[name] for name in known if name in by_id)
    first = _FIRST[device.policy.select](device)
    return tuple(
        sorted(
            device.history.pairs,
            key=lambda pair: (
                known.get(pair.id, len(known)),
                0 if pair.id in known else first(pair),
                _rank(pair.id, device.secret),
                pair.id,
            ),
        )
    )


def check_dates(user: UserHistory, select: Select) -> None:
    """Refuse an order by date where a record has none that can be read.

    Raises:
        DataError: Naming the first record without one.
    """
    if select in ("recent", "oldest"):
        _dates(user, select)


def _dates(user: UserHistory, select: Select) -> dict[str, Key]:
    owner = f"user {shown(user.user_id)}"
    remedy = "share in another order: random or sensitive"
    return {item.id: date_of(item, owner, f"select={select}", remedy) for item in user.profile}


def _oldest(device: Device) -> Callable[[Pair], int]:
    """Places by date; a date of lower precision stands before the more exact ones within it."""
    dates = _dates(device.history, device.policy.select)
    places = {date: place for place, date in enumerate(sorted(set(dates.values())))}
    return lambda pair: places[dates[pair.id]]


def _recent(device: Device) -> Callable[[Pair], int]:
    oldest = _oldest(device)
    return lambda pair: -oldest(pair)


def _rank(record_id: str, secret: bytes) -> bytes:
    encoded = record_id.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(encoded, key=secret, digest_size=16).digest()


def _most_useful(device: Device) -> Callable[[Pair], int]:
    places = usefulness.read_order(device.folder)
    return lambda pair: places[pair.id]


_FIRST: dict[str, Callable[[Device], Callable[[Pair], int]]] = {
    "random": lambda _device: lambda _pair: 0,
    "recent": _recent,
    "oldest": _oldest,
    "sensitive": lambda _device: sensitivity,
    "dac24": _most_useful,
}
