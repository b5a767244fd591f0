"""Consent: the only code that decides which records leave the device.

The records are ordered once by a keyed hash under the device's secret. A ratio r covers the first
round-half-up(r * n) of them, so a smaller share always lies inside a larger one, and whatever a
server asks, however often, the union of what it gets is one prefix of that order. Withdrawn records
never leave. A share reply tells neither n nor the policy; the numbers that a device reports after
training tell n (docs/architecture.md).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal

from clients.folder import Device, Policy
from lamp.records import Pair


@dataclass(frozen=True, slots=True)
class Grant:
    """What may leave the device for one share request.

    Attributes:
        pairs: Records of the largest granted ratio, in sharing order.
        counts: Per requested ratio, how many of ``pairs`` from the start belong to it.
    """

    pairs: tuple[Pair, ...]
    counts: tuple[int, ...]


def grant(device: Device, ratios: Sequence[float]) -> Grant:
    """Decide a share request; a ratio above the policy's is granted as the policy's."""
    ordered = sharing_order(device.history.pairs, device.secret)
    withdrawn = set(device.policy.withdrawn)
    counts = []
    for ratio in ratios:
        covered = ordered[: shared_count(granted_ratio(ratio, device.policy), len(ordered))]
        counts.append(sum(pair.id not in withdrawn for pair in covered))
    allowed = [pair for pair in ordered if pair.id not in withdrawn]
    return Grant(pairs=tuple(allowed[: max(counts, default=0)]), counts=tuple(counts))


def granted_ratio(asked: float, policy: Policy) -> float:
    """The ratio that the user grants: never above the policy; nonsense (nan, below 0) gets 0."""
    return min(asked, policy.ratio) if asked > 0 else 0.0


def shared_count(ratio: float, num_records: int) -> int:
    """round-half-up(ratio * n) in decimal: 0.7 of 45 is 31.5, so 32 records."""
    exact = Decimal(str(ratio)) * num_records
    return int(exact.quantize(Decimal(1), rounding=ROUND_HALF_UP))


def sharing_order(pairs: Sequence[Pair], secret: bytes) -> tuple[Pair, ...]:
    """A permutation that only the device can compute; it does not depend on the file's order."""
    return tuple(sorted(pairs, key=lambda pair: (_rank(pair.id, secret), pair.id)))


def _rank(record_id: str, secret: bytes) -> bytes:
    encoded = record_id.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(encoded, key=secret, digest_size=16).digest()
