"""``python -m sim withdraw run=... user=... ratio=...``: a user shares less from now on.

The simulation plays both sides, one after the other: the device lowers its policy and marks its
stale adapters, then the cloud deletes what only these records gave rise to and puts a tombstone
into the ledger. ``python -m sim resume run=...`` trains the stale adapters anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clients import folder as device_folder
from clients.withdrawal import Withdrawal, withdraw
from conf.errors import ConfigError, RunError
from conf.words import read_words, required
from sim.folders import RunFolder, asked_run, locked
from sim.report.tables import plural
from sim.run import provision
from sim.terminal import PlainConsole
from strategy.cache import Cache
from strategy.candidates import FILE, forget
from strategy.ledger import Ledger
from strategy.taught import forget_logits

USAGE = (
    "usage: python -m sim withdraw run=<folder or name> user=<id> ratio=<0 to 1> "
    "[runs=<folder of runs>]"
)


def main(argv: Sequence[str]) -> int:
    """Withdraw one user's records above a ratio, and say what that did."""
    console = PlainConsole()
    if set(argv) & {"-h", "--help"}:
        console.print(USAGE)
        return 0
    values, _ = read_words("withdraw", argv, ("run", "user", "ratio", "runs"))
    folder = asked_run("withdraw", values)
    user = required("withdraw", values, "user", "17")
    ratio = _ratio(required("withdraw", values, "ratio", "0.2"))
    with locked(folder):
        withdrawal, deleted = withdraw_user(folder, user, ratio)
    console.print(_told(withdrawal, ratio, deleted, folder))
    return 0


def withdraw_user(folder: RunFolder, user: str, ratio: float) -> tuple[Withdrawal, int]:
    """Lower one user's share on the device, then forget on the server.

    Returns:
        What was withdrawn, and how many cache entries were deleted.

    Raises:
        RunError: If the run has no such user.
        ConfigError: If the user shares less already.
    """
    device = folder.devices / device_folder.folder_name(user)
    if not (device / "policy.json").is_file():
        known = [device_folder.read(path).user_id for path in _devices(folder)[:5]]
        raise RunError(f"user={user}: not in this run; it has {', '.join(known)} ...")
    withdrawal = withdraw(device, ratio)
    folder.finished.unlink(missing_ok=True)  # what is stale now is left to do
    provision.lower_policy(folder.path / "policies.csv", user, ratio)
    return withdrawal, _forget(folder, withdrawal)


def _forget(folder: RunFolder, withdrawal: Withdrawal) -> int:
    """The cloud's part; the tombstone comes last, when nothing is left to delete."""
    config = folder.read_config()
    records = withdrawal.hashes
    cache = Cache(Path(config.paths.cache) / "augmentation.sqlite")
    deleted = cache.release(withdrawal.user_id, records)
    forget(folder.path / FILE, records)
    forget_logits(folder.path)
    Ledger(folder.path / "ledger.jsonl").tombstone(withdrawal.user_id, records)
    return deleted


def _devices(folder: RunFolder) -> tuple[Path, ...]:
    return device_folder.device_folders(folder.devices)


def _ratio(text: str) -> float:
    try:
        ratio = float(text)
    except ValueError:
        ratio = -1.0
    if not 0 <= ratio <= 1:
        raise ConfigError(f"withdraw: ratio must be a number from 0 to 1, got {text!r}")
    return ratio


def _told(withdrawal: Withdrawal, ratio: float, deleted: int, folder: RunFolder) -> str:
    lines = [
        f"User {withdrawal.user_id} shares at most {ratio:g} from now on: "
        f"{plural(withdrawal.newly, 'record')} withdrawn, "
        f"{plural(deleted, 'cached value')} deleted."
    ]
    if withdrawal.stale:
        lines.append(
            f"Stale adapters: {', '.join(withdrawal.stale)}. "
            f"python -m sim resume run={folder.path.name} trains them anew."
        )
    return "\n".join(lines)
