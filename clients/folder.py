"""The user's own folder on the device: history, policy, secret, adapters. Only the device reads it.

It is made once at set-up, for its owner alone (0700). Nothing that a server sends changes the
policy, the secret or the order.

    <folder>/history.json   user id, D_u, queries with gold answers
    <folder>/policy.json    what the user lets go, and what the device takes (clients.policy)
    <folder>/secret.bin     32 random bytes that order the records for sharing
    <folder>/order.json     the order in which records are shared (clients.share_order)
    <folder>/limits.json    what memory and storage the device has, where it is known
    <folder>/sent.jsonl     what left, and what of the budget is spent (clients.sent)
    <folder>/errors.jsonl   what went wrong; it never leaves
    <folder>/adapters/      one PEFT folder per arm
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from clients import policy as policy_file
from clients.policy import Policy as Policy
from conf import plugins
from conf.errors import DataError
from lamp.records import UserHistory
from lamp.serialise import history_from_json, history_to_json
from storage import atomic
from storage.hashing import hash_bytes
from storage.text_files import read_json

SECRET_BYTES = 32
STALE = "STALE.json"  # in the folder of an adapter that saw withdrawn records
ORDER = "order.json"
SECRET = "secret.bin"
_AGAIN = "set the device up again"


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
        order: Record ids in the order in which they are shared; None before it was fixed.
    """

    folder: Path
    history: UserHistory
    policy: Policy
    secret: bytes
    limits: Limits = Limits()
    order: tuple[str, ...] | None = None

    @property
    def user_id(self) -> str:
        """The user's id."""
        return self.history.user_id


def folder_name(user_id: str) -> str:
    """A folder name that is safe for any user id ('../x', an empty one, 10 000 characters)."""
    readable = re.sub(r"[^A-Za-z0-9]+", "-", user_id)[:32].strip("-") or "user"
    return f"{readable}-{hash_bytes(user_id.encode('utf-8', 'surrogatepass'))}"


def create(
    root: Path,
    history: UserHistory,
    policy: Policy,
    secret: bytes,
    limits: Limits = Limits(),
) -> Path:
    """Set up a device folder below ``root`` and return it."""
    _require_secret(secret, "secret")
    folder = root / folder_name(history.user_id)
    atomic.make_folder(folder, private=True)
    atomic.write_json(folder / "history.json", history_to_json(history))
    write_policy(folder, policy)
    atomic.write_bytes(folder / SECRET, secret)
    if limits != Limits():
        atomic.write_json(folder / "limits.json", asdict(limits))
    return folder


def read(folder: Path) -> Device:
    """Read a device folder, and load the plugins that its policy names: its task may be in one.

    Raises:
        DataError: If a file is missing or broken.
        ConfigError: If a plugin cannot be loaded.
    """
    policy = policy_file.read(folder)
    plugins.load(policy.plugins, root=folder)
    return Device(
        folder=folder,
        history=_history_from_json(folder, _read_json(folder / "history.json")),
        policy=policy,
        secret=_read_secret(folder),
        limits=_limits_from_json(folder),
        order=read_order(folder),
    )


def read_order(folder: Path) -> tuple[str, ...] | None:
    """The order in which records are shared; None before it was fixed.

    Raises:
        DataError: If the file is broken.
    """
    path = folder / ORDER
    if not path.is_file():
        return None
    value = read_json(path)
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise DataError(f"{folder.name}/{ORDER}: expected a list of record ids; restore the file")
    return tuple(value)


def stored_adapters(folder: Path) -> list[Path]:
    """The complete adapters of a device, by name; what a crash left under a hidden name is none."""
    found = (folder / "adapters").glob("[!.]*")
    return sorted(each for each in found if atomic.is_complete(each))


def write_policy(folder: Path, policy: Policy) -> None:
    """Replace the policy of a device; only the user's own commands do."""
    policy_file.write(folder, policy)


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


def _limits_from_json(folder: Path) -> Limits:
    path = folder / "limits.json"
    if not path.is_file():
        return Limits()
    try:
        return Limits(**_read_json(path))
    except TypeError as error:
        raise DataError(f"{folder.name}/limits.json: {error}; set the device up again") from error


def _read_secret(folder: Path) -> bytes:
    secret = _read_bytes(folder / SECRET)
    _require_secret(secret, f"{folder.name}/{SECRET}")
    return secret


def _require_secret(secret: bytes, where: str) -> None:
    """Refuse a secret that could be searched for: it decides which records are shared."""
    if len(secret) != SECRET_BYTES:
        raise DataError(
            f"{where}: expected {SECRET_BYTES} random bytes, got {len(secret)}; write new ones: "
            f"head -c {SECRET_BYTES} /dev/urandom"
        )


def _read_json(path: Path) -> dict[str, Any]:
    value = read_json(path, _AGAIN, _AGAIN)
    if not isinstance(value, dict):
        raise DataError(f"{path.parent.name}/{path.name}: expected a JSON object; {_AGAIN}")
    return value


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path.parent.name}/{path.name}: {error.strerror}; {_AGAIN}") from error
