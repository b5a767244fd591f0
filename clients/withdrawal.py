"""Withdrawal: the user takes records back that were shared before.

The policy's ratio is lowered, and the records that it covered before and covers no more are noted
as withdrawn for good: no later policy lets them leave again. Adapters that saw what the cloud made
from them are deleted; a mark says why. The records themselves stay in D_u, which is the user's own.

Every step can be repeated: after a crash the same command finishes what was begun.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from clients import folder, outbound, sent
from clients.folder import Device
from conf.errors import ConfigError
from lamp.records import Pair
from lamp.serialise import record_hash


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """What the cloud has to forget, and what the device has to train anew.

    Attributes:
        user_id: Who withdrew.
        records: All withdrawn records, in the form in which they leave now.
        hashes: Content hashes of every form in which they ever left.
        newly: How many of them were withdrawn just now.
        stale: Arms whose adapters are stale.
    """

    user_id: str
    records: tuple[Pair, ...]
    hashes: tuple[str, ...]
    newly: int
    stale: tuple[str, ...]


def withdraw(device_folder: Path, ratio: float) -> Withdrawal:
    """Lower the share of one device to ``ratio``.

    Raises:
        ConfigError: If the user allows less than ``ratio`` already.
    """
    from clients import adapters  # with PyTorch; a message that asks for hashes needs none

    device = folder.read(device_folder)
    if ratio > device.policy.ratio:
        raise ConfigError(
            f"ratio: user {device.user_id} shares at most {device.policy.ratio:g} already; "
            f"expected a lower ratio, got {ratio:g}"
        )
    gone = _covered(device) - _covered(_with_ratio(device, ratio))
    withdrawn = {*device.policy.withdrawn, *gone}
    folder.write_policy(
        device_folder, replace(device.policy, ratio=ratio, withdrawn=_sorted(withdrawn))
    )
    return Withdrawal(
        user_id=device.user_id,
        records=outbound.as_sent(device, withdrawn),
        hashes=hashes_as_sent(device, withdrawn),
        newly=len(gone),
        stale=tuple(adapters.mark_stale(device, withdrawn)),
    )


def hashes_as_sent(device: Device, record_ids: Collection[str]) -> tuple[str, ...]:
    """Content hashes of every form in which these records left the device."""
    known = sent.forms(device.folder)
    found = {record_hash(pair) for pair in outbound.as_sent(device, record_ids)}
    return _sorted(found.union(*(known.get(name, ()) for name in record_ids)))


def _covered(device: Device) -> set[str]:
    return {pair.id for pair in outbound.grant(device, [1.0]).pairs}


def _with_ratio(device: Device, ratio: float) -> Device:
    return replace(device, policy=replace(device.policy, ratio=ratio))


def _sorted(ids: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(ids))
