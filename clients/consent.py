"""Consent: the only code that decides what leaves the device.

The records are ordered once, by what the user chose (at random, by date, by sensitivity) and then
by a keyed hash under the device's secret. A ratio r covers the first round-half-up(r * n) of them,
so a smaller share always lies inside a larger one, and whatever a server asks, however often, the
union of what it gets is one prefix of that order. Withdrawn records never leave. What the policy
redacts is redacted here, before a record leaves. A share reply tells neither n nor the policy; the
numbers that a device reports after training tell n (docs/architecture.md).

Adapter weights and texts of answers leave only where the policy permits them, whatever the message
asks for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_UP, Decimal

from clients import usefulness
from clients.folder import Device, Policy
from clients.sensitivity import redacted, sensitivity
from conf.errors import ProtocolError
from lamp.dates import date_key
from lamp.records import Pair
from protocol.recipe import Recipe
from protocol.settings import DeviceSettings


@dataclass(frozen=True, slots=True)
class Grant:
    """What may leave the device for one share request.

    Attributes:
        pairs: Records of the largest granted ratio, in sharing order, redacted.
        counts: Per requested ratio, how many of ``pairs`` from the start belong to it.
        redactions: Per record of ``pairs``, how many spans were redacted.
    """

    pairs: tuple[Pair, ...]
    counts: tuple[int, ...]
    redactions: tuple[int, ...]


def grant(device: Device, ratios: Sequence[float]) -> Grant:
    """Decide a share request; a ratio above the policy's is granted as the policy's."""
    ordered = sharing_order(device)
    withdrawn = set(device.policy.withdrawn)
    counts = []
    for ratio in ratios:
        covered = ordered[: shared_count(granted_ratio(ratio, device.policy), len(ordered))]
        counts.append(sum(pair.id not in withdrawn for pair in covered))
    allowed = [pair for pair in ordered if pair.id not in withdrawn]
    leaving = [_redact(pair, device.policy) for pair in allowed[: max(counts, default=0)]]
    return Grant(
        pairs=tuple(pair for pair, _ in leaving),
        counts=tuple(counts),
        redactions=tuple(number for _, number in leaving),
    )


def as_sent(device: Device, record_ids: Collection[str]) -> tuple[Pair, ...]:
    """These records in the form in which they leave, or left, the device."""
    return tuple(
        _redact(pair, device.policy)[0] for pair in device.history.pairs if pair.id in record_ids
    )


def granted_ratio(asked: float, policy: Policy) -> float:
    """The ratio that the user grants: never above the policy; nonsense (nan, below 0) gets 0."""
    return min(asked, policy.ratio) if asked > 0 else 0.0


def shared_count(ratio: float, num_records: int) -> int:
    """round-half-up(ratio * n) in decimal: 0.7 of 45 is 31.5, so 32 records."""
    exact = Decimal(str(ratio)) * num_records
    return int(exact.quantize(Decimal(1), rounding=ROUND_HALF_UP))


def sharing_order(device: Device) -> tuple[Pair, ...]:
    """The order in which records are shared; ties are broken by what only the device can compute.

    It does not depend on the file's order.
    """
    first = _FIRST[device.policy.select](device)
    return tuple(
        sorted(
            device.history.pairs,
            key=lambda pair: (first(pair), _rank(pair.id, device.secret), pair.id),
        )
    )


def check_recipe(device: Device, recipe: Recipe) -> None:
    """Refuse training whose outcome the user does not let go.

    Raises:
        ProtocolError: If the adapter's weights were to leave and the policy does not permit it.
    """
    if recipe.federated and "weights" not in device.policy.permits:
        raise ProtocolError(
            f"user {device.user_id}: the server asks for adapter weights; this user permits "
            f"{', '.join(device.policy.permits) or 'none'} of weights, texts"
        )


def allowed_settings(device: Device, settings: DeviceSettings) -> DeviceSettings:
    """The settings without what the user does not permit: texts of answers stay here."""
    if "texts" in device.policy.permits:
        return settings
    return replace(settings, evaluation=replace(settings.evaluation, ship_predictions=False))


def _redact(pair: Pair, policy: Policy) -> tuple[Pair, int]:
    """The record as it may leave, and how many spans were redacted."""
    made = {field: redacted(getattr(pair, field)) for field in policy.redact}
    texts = {field: text for field, (text, _) in made.items()}
    return replace(pair, **texts), sum(number for _, number in made.values())


def _oldest(device: Device) -> Callable[[Pair], int]:
    dates = {item.id: _by_time(item.date or "") for item in device.history.profile}
    places = {date: place for place, date in enumerate(sorted(set(dates.values())))}
    return lambda pair: places[dates[pair.id]]


def _by_time(date: str) -> tuple[tuple[int, ...], str]:
    """Dates compare as numbers: as text 2017-2-3 would come after 2017-10-2."""
    return date_key(date) or (), date


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
