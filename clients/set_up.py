"""The two commands of a real device's owner that change what its policy lets go.

    python -m clients setup folder=/data/ana ratio=0.3 task=lamp_4 base_keys=<64 hex digits>
    python -m clients withdraw folder=/data/ana ratio=0.1

``setup`` finds ``history.json`` in the folder and makes what a server must not choose: the policy,
the secret and the order in which records are shared. Words are keys of the policy, their values
JSON or plain text (docs/security.md). What is there already stays, so it can be run again.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from clients import folder, share_order
from clients import policy as policy_file
from clients.folder import Device
from clients.outbound import largest_share
from clients.policy import Policy
from conf.compose import compose
from conf.errors import CdcdaError, ConfigError
from conf.words import read_words, required
from storage import atomic
from storage.text_files import printable

KEYS = tuple(field.name for field in fields(Policy))
LISTS = ("redact", "permits", "plugins", "bases", "base_keys")  # one value needs no brackets
USAGE = """\
python -m clients setup folder=<folder with history.json> ratio=<0 to 1> task=<name> [key=value ...]
python -m clients withdraw folder=<device folder> ratio=<0 to 1>"""


def main(argv: Sequence[str]) -> int:
    """Run ``setup ...`` or ``withdraw ...``; exit status 0, or 2 with one line on stderr."""
    command, words = argv[0], argv[1:]
    if set(words) & {"-h", "--help"}:
        print(USAGE)
        return 0
    try:
        print(printable(_COMMANDS[command](words)))
    except CdcdaError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return 2
    return 0


def _set_up(words: Sequence[str]) -> str:
    values, _ = read_words("setup", words, ("folder", *KEYS))
    own = Path(required("setup", values, "folder", "/data/ana")).expanduser()
    del values["folder"]
    device = set_up(own, {key: _value(key, text) for key, text in values.items()})
    records = len(device.history.pairs)
    shared = largest_share(device.policy.ratio, records)
    task = device.policy.task.name if device.policy.task else "none, so it takes no training"
    return (
        f"User {device.user_id}: at most {shared} of {records} records may leave, numbers "
        f"{device.policy.numbers}, task {task}. The policy is {own / policy_file.FILE}; "
        "docs/security.md has its keys."
    )


def set_up(own: Path, values: dict[str, Any]) -> Device:
    """Make what is missing in the folder ``own`` of a real device.

    Args:
        own: Folder with ``history.json``; it becomes its owner's alone.
        values: Keys of the policy; none where there is one already.

    Raises:
        ConfigError: If there is no history, or a policy beside values for another one.
        DataError: If history, policy or secret cannot be used.
        ProtocolError: If records are to be shared by scores, which only a base model gives.
    """
    if not (own / "history.json").is_file():
        raise ConfigError(
            f"setup: expected {own}/history.json with the user's records, there is none; write it "
            "first (lamp/serialise.py: history_to_json)"
        )
    _make_private(own)
    if (own / policy_file.FILE).exists():
        if values:
            raise ConfigError(
                f"setup: {own} has a policy already, beside which {', '.join(values)} changes "
                f"nothing; edit {policy_file.FILE}, or lower the ratio with "
                f"`python -m clients withdraw folder={own} ratio=...`"
            )
    else:
        if "ratio" not in values:
            raise ConfigError("setup: ratio is missing, for example ratio=0.3")
        policy_file.write(own, policy_file.from_json(values, own.name))
    if not (own / folder.SECRET).exists():
        atomic.write_bytes(own / folder.SECRET, os.urandom(folder.SECRET_BYTES))
    return share_order.fixed(folder.read(own))


def _make_private(own: Path) -> None:
    """Let the owner alone into the folder, and into what was put there before."""
    atomic.make_folder(own, private=True)
    for path in own.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o700 if path.is_dir() else 0o600)


def _value(key: str, text: str) -> Any:
    """A word's value: JSON, or else the text; a task may be named, its length is its preset's."""
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    if key == "task" and isinstance(value, str):
        return asdict(compose([f"task={value}"]).task)
    return [value] if key in LISTS and not isinstance(value, list) else value


def _withdraw(words: Sequence[str]) -> str:
    from clients.withdrawal import withdraw

    values, _ = read_words("withdraw", words, ("folder", "ratio"))
    own = Path(required("withdraw", values, "folder", "/data/ana")).expanduser()
    text = required("withdraw", values, "ratio", "0.1")
    try:
        found = withdraw(own, policy_file.from_json({"ratio": float(text)}, own.name).ratio)
    except ValueError:
        raise ConfigError(f"withdraw: ratio must be a number from 0 to 1, got {text}") from None
    told = (
        f"User {found.user_id} shares at most {text} from now on: {found.newly} records withdrawn. "
        "The server deletes what it made from them when it asks next, in its next run or resume."
    )
    if found.stale:
        told += f" Deleted adapters, which had seen them: {', '.join(found.stale)}."
    return told


_COMMANDS: dict[str, Callable[[Sequence[str]], str]] = {"setup": _set_up, "withdraw": _withdraw}
