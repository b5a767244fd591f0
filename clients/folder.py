"""The user's own folder on the device: history, policy, secret, adapters. Only the device reads it.

It is made once at set-up. Nothing that a server sends changes the policy or the secret.

    <folder>/history.json   user id, D_u, queries with gold answers
    <folder>/policy.json    share ratio, which records go first, what is redacted or withdrawn
    <folder>/secret.bin     32 random bytes that order the records for sharing
    <folder>/limits.json    what memory and storage the device has, where it is known
    <folder>/adapters/      one PEFT folder per arm
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from conf.errors import DataError
from conf.schema import RedactedField, Select
from lamp.records import UserHistory
from lamp.serialise import history_from_json, history_to_json
from storage import atomic
from storage.hashing import hash_bytes

SECRET_BYTES = 32
STALE = "STALE.json"  # in the folder of an adapter that saw withdrawn records
Permit = Literal["weights", "texts"]


@dataclass(frozen=True, slots=True)
class Policy:
    """What the user allows.

    Attributes:
        ratio: Largest share of D_u that may leave the device, 0 to 1.
        withdrawn: Record ids that may not leave it (any more).
        select: Which records are shared first.
        redact: Fields of a record that are redacted before it leaves.
        permits: What else may leave: the adapter's "weights", the "texts" of answers.
    """

    ratio: float
    withdrawn: tuple[str, ...] = ()
    select: Select = "random"
    redact: tuple[RedactedField, ...] = ()
    permits: tuple[Permit, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a ratio outside [0, 1]."""
        if not 0 <= self.ratio <= 1:
            raise DataError(f"policy: ratio must lie in [0, 1], got {self.ratio}")


@dataclass(frozen=True, slots=True)
class Limits:
    """What the device can take; None is no limit.

    Attributes:
        memory_bytes: For weights, adapter and training.
        storage_bytes: For the base model and one adapter.
    """

    memory_bytes: float | None = None
    storage_bytes: float | None = None


@dataclass(frozen=True, slots=True)
class Device:
    """One user's device.

    Attributes:
        folder: The user's own folder.
        history: D_u and the user's queries.
        policy: What the user allows.
        secret: Bytes that only the device knows.
        limits: What the device can take.
    """

    folder: Path
    history: UserHistory
    policy: Policy
    secret: bytes
    limits: Limits = Limits()

    @property
    def user_id(self) -> str:
        """The user's id."""
        return self.history.user_id


def folder_name(user_id: str) -> str:
    """A folder name that is safe for any user id ('../x', an empty one, 10 000 characters)."""
    readable = re.sub(r"[^A-Za-z0-9]+", "-", user_id)[:32].strip("-") or "user"
    return f"{readable}-{hash_bytes(user_id.encode('utf-8', 'surrogatepass'))[:8]}"


def create(
    root: Path,
    history: UserHistory,
    policy: Policy,
    secret: bytes,
    limits: Limits = Limits(),
) -> Path:
    """Set up a device folder below ``root`` and return it."""
    if len(secret) != SECRET_BYTES:
        raise DataError(f"secret: expected {SECRET_BYTES} bytes, got {len(secret)}")
    folder = root / folder_name(history.user_id)
    atomic.write_json(folder / "history.json", history_to_json(history))
    write_policy(folder, policy)
    atomic.write_bytes(folder / "secret.bin", secret)
    if limits != Limits():
        atomic.write_json(folder / "limits.json", asdict(limits))
    return folder


def read(folder: Path) -> Device:
    """Read a device folder.

    Raises:
        DataError: If a file is missing or broken.
    """
    return Device(
        folder=folder,
        history=_history_from_json(folder, _read_json(folder / "history.json")),
        policy=_policy_from_json(folder, _read_json(folder / "policy.json")),
        secret=_read_bytes(folder / "secret.bin"),
        limits=_limits_from_json(folder),
    )


def stored_adapters(folder: Path) -> list[Path]:
    """The complete adapters of a device, by name; what a crash left under a hidden name is none."""
    found = (folder / "adapters").glob("[!.]*")
    return sorted(each for each in found if atomic.is_complete(each))


def write_policy(folder: Path, policy: Policy) -> None:
    """Replace the policy of a device; only the user's own commands do."""
    atomic.write_json(folder / "policy.json", asdict(policy))


@lru_cache(maxsize=4)
def device_folders(root: Path) -> tuple[Path, ...]:
    """The device folders below ``root``, in the order of their users' ids.

    In a simulation the i-th virtual client holds the i-th folder.
    """
    if not root.is_dir():
        raise DataError(f"{root.name}: no such folder of devices; the run was not set up")
    named = [(_claimed_user(path), path.parent) for path in root.glob("*/history.json")]
    return tuple(folder for _, folder in sorted(named))


def _claimed_user(path: Path) -> str:
    """The user that a history names; a broken one sorts by its folder and fails when it is read."""
    try:
        return str(_read_json(path)["user_id"])
    except (DataError, KeyError):
        return path.parent.name


def _history_from_json(folder: Path, value: dict[str, Any]) -> UserHistory:
    try:
        return history_from_json(value)
    except (KeyError, TypeError) as error:
        raise DataError(f"{folder.name}/history.json: {error}; set the device up again") from error


def _policy_from_json(folder: Path, value: dict[str, Any]) -> Policy:
    try:
        return Policy(
            ratio=float(value["ratio"]),
            withdrawn=tuple(value["withdrawn"]),
            select=value["select"],
            redact=tuple(value["redact"]),
            permits=tuple(value["permits"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{folder.name}/policy.json: {error}; set the device up again") from error


def _limits_from_json(folder: Path) -> Limits:
    path = folder / "limits.json"
    if not path.is_file():
        return Limits()
    try:
        return Limits(**_read_json(path))
    except TypeError as error:
        raise DataError(f"{folder.name}/limits.json: {error}; set the device up again") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(_read_bytes(path))
    except ValueError as error:
        raise DataError(
            f"{path.parent.name}/{path.name}: broken JSON; set the device up again"
        ) from error
    if not isinstance(value, dict):
        raise DataError(f"{path.parent.name}/{path.name}: expected a JSON object")
    return value


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path.parent.name}/{path.name}: {error.strerror}; set the device up again"
        ) from error
