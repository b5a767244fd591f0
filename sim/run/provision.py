"""Set-up of the simulated devices: each gets its own folder with history, policy and secret.

The policies' distribution is part of the simulation's configuration and is drawn here, before any
server exists. The server never reads these folders; ``policies.csv`` is the simulator's own record,
for plots. Secrets follow from the root seed, so that a run can be repeated; a real device has its
own.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from clients import folder, share_order
from clients.folder import SECRET_BYTES, Device, Limits
from clients.policy import NO_BUDGET, UNBOUNDED, Permit, Policy
from conf.errors import ConfigError, DataError
from conf.schema import Config, DeviceProfile, PrivacyConfig
from conf.seeds import derive_seed
from lamp.records import UserHistory
from sim.profiles import draw_profiles, largest_remainder
from storage import atomic
from storage.text_files import display_name, read_table, shown, unique_rows
from strategy.methods import find_method

MIB = 1 << 20
_NUMBER = re.compile(r"\d*\.?\d+(?:[eE]-?\d+)?|\d+\.", re.ASCII)


@dataclass(frozen=True, slots=True)
class Preference:
    """One user's attitude as the simulation drew it."""

    ratio: float
    group: str


def provision(
    root: Path,
    users: Sequence[UserHistory],
    config: Config,
) -> dict[str, Preference]:
    """Make one device folder per user below ``root``.

    Args:
        root: Parent of the device folders.
        users: The users.
        config: The run: how policies are drawn, what the devices are like.

    Returns:
        The drawn preference by user id.
    """
    ids, seed = [user.user_id for user in users], config.seed
    preferences = draw_preferences(ids, config.privacy, seed)
    profiles = draw_profiles(ids, config.devices, seed)
    for user in users:
        folder.create(
            root,
            user,
            policy_of(config, preferences[user.user_id].ratio),
            secret=np.random.default_rng(derive_seed(seed, user.user_id, "secret")).bytes(
                SECRET_BYTES
            ),
            limits=_limits(profiles[user.user_id]),
        )
    return preferences


def policy_of(config: Config, ratio: float) -> Policy:
    """The policy of a simulated user, who shares at most ``ratio``.

    Simulated users let exact numbers go, as often as they are asked, and take whatever
    hyperparameters are compared: they are there to be measured. Noise is seeded, so that a run can
    be repeated; its epsilon is for study. A real device has none of this
    (:class:`clients.policy.Policy` has its defaults).
    """
    return Policy(
        ratio=ratio,
        select=config.privacy.select,
        redact=config.privacy.redact,
        permits=permits_of(config),
        numbers="exact",
        budget=NO_BUDGET,
        task=config.task,
        plugins=config.plugins,
        bertscore=config.evaluation.bertscore,
        bounds=UNBOUNDED,
        epsilon=None,
        noise="seeded",
    )


def fix_orders(root: Path, score: Callable[[Device], None] | None = None) -> None:
    """Fix the order in which each device below ``root`` shares, before any server exists.

    Args:
        root: Parent of the device folders.
        score: Scores a device's records, where users share by scores.
    """
    for path in folder.device_folders(root):
        device = folder.read(path)
        if score is not None:
            score(device)
        share_order.fixed(device)


def permits_of(config: Config) -> tuple[Permit, ...]:
    """What the simulated users let go besides records: what the run is set up to show."""
    permits: list[Permit] = []
    if any(find_method(name).federated for name in config.methods):
        permits.append("weights")
    if config.evaluation.ship_predictions:
        permits.append("texts")
    return tuple(permits)


def write_policies(path: Path, preferences: Mapping[str, Preference]) -> None:
    """Write user_id, ratio, group as CSV."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(("user_id", "ratio", "group"))
    writer.writerows(
        (user, f"{preferences[user].ratio:.6g}", preferences[user].group)
        for user in sorted(preferences)
    )
    atomic.write_text(path, buffer.getvalue())


def lower_policy(path: Path, user: str, ratio: float) -> None:
    """Write a user's lowered ratio into the simulator's own record, where there is one."""
    if not path.is_file():
        return
    rows = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline=""))
    preferences = {row["user_id"]: Preference(float(row["ratio"]), row["group"]) for row in rows}
    if user in preferences:
        preferences[user] = replace(preferences[user], ratio=ratio)
    write_policies(path, preferences)


def draw_preferences(
    user_ids: Sequence[str], privacy: PrivacyConfig, seed: int
) -> dict[str, Preference]:
    """Draw every user's largest share ratio.

    Raises:
        ConfigError: If a needed key is missing.
        DataError: If the per-user file is missing, broken or leaves a user out.
    """
    if privacy.kind == "per_user":
        return _read_preferences(privacy.csv, user_ids)
    if privacy.kind == "mixed":
        return _draw_mixed(user_ids, privacy, seed)
    return {
        user: Preference(ratio=_draw_one(privacy, derive_seed(seed, user, "ratio")), group="all")
        for user in user_ids
    }


def _draw_one(privacy: PrivacyConfig, seed: int) -> float:
    generator = np.random.default_rng(seed)
    if privacy.kind == "fixed":
        return privacy.ratio
    if privacy.kind == "beta":
        return round(float(generator.beta(privacy.alpha, privacy.beta)), 6)
    return round(float(generator.uniform(privacy.low, privacy.high)), 6)


def _draw_mixed(
    user_ids: Sequence[str], privacy: PrivacyConfig, seed: int
) -> dict[str, Preference]:
    """Fill the groups to their exact shares (largest remainder), in a seeded order of the users."""
    sizes = largest_remainder([group.share for group in privacy.groups], len(user_ids))
    generator = np.random.default_rng(derive_seed(seed, "groups"))
    shuffled = [sorted(user_ids)[index] for index in generator.permutation(len(user_ids))]
    preferences: dict[str, Preference] = {}
    start = 0
    for group, size in zip(privacy.groups, sizes, strict=True):
        for user in shuffled[start : start + size]:
            own = np.random.default_rng(derive_seed(seed, user, "ratio"))
            ratio = round(float(own.uniform(group.low, group.high)), 6)
            preferences[user] = Preference(ratio=ratio, group=group.name)
        start += size
    return preferences


def _limits(profile: DeviceProfile) -> Limits:
    return Limits(
        memory_bytes=None if profile.memory_mib is None else profile.memory_mib * MIB,
        storage_bytes=None if profile.storage_mib is None else profile.storage_mib * MIB,
    )


def _read_preferences(path: str | None, user_ids: Sequence[str]) -> dict[str, Preference]:
    if path is None:
        raise ConfigError("privacy.csv: expected a file with user_id,ratio for kind=per_user")
    where = display_name(Path(path))
    table = read_table(Path(path), ("user_id", "ratio"), missing="set privacy.csv")
    ratios = {
        row["user_id"]: _ratio(row["ratio"], f"{where} line {number}, column ratio")
        for number, row in unique_rows(table, "user_id", where)
    }
    missing = [user for user in user_ids if user not in ratios]
    if missing:
        raise DataError(
            f"{Path(path).name}: no ratio for {len(missing)} users, the first is "
            f"{shown(missing[0])}; add a line for each target user"
        )
    return {user: Preference(ratio=ratios[user], group="per_user") for user in user_ids}


def _ratio(text: str, where: str) -> float:
    """Read a share ratio; nothing is guessed of "50 %", "0,5" or "50"."""
    ratio = float(text) if _NUMBER.fullmatch(text) else -1.0
    if not 0 <= ratio <= 1:
        raise DataError(
            f"{where}: expected a ratio from 0 to 1 with a decimal point, as 0.5 for a half, got "
            f"{shown(text)}; correct it"
        )
    return ratio
