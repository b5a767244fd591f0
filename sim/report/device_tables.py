"""What each kind of device got, needed and could not hold; only where kinds are told apart."""

from __future__ import annotations

import pandas as pd

from conf.schema import DeviceProfile
from lamp import metrics
from sim.report.frames import users_frame
from sim.report.run_records import DOWN, Run
from sim.report.tables import METRIC_TITLES, NOT_AVAILABLE, Table, duration, make_table, number

MEGABIT = 1e6
BITS = 8


def devices_table(run: Run) -> Table | None:
    """Per arm and profile: users, refusals, score, and simulated adaptation and download times."""
    frame = device_frame(run)
    if frame is None:
        return None
    rows = [
        [
            line.arm,
            line.device,
            str(line.users),
            str(line.failed),
            NOT_AVAILABLE if pd.isna(line.score) else number(line.score),
            *(
                NOT_AVAILABLE if pd.isna(seconds) else duration(seconds)
                for seconds in (line.adapting, line.downloading)
            ),
        ]
        for line in frame.itertuples()
    ]
    metric, _ = metrics.headline(run.task)
    score = f"{METRIC_TITLES[metric]}, mean of users"
    return make_table(
        ("Method", "Device", "Users", "Failed", score, "Adapting", "Downloading"), rows, 2
    )


def device_frame(run: Run) -> pd.DataFrame | None:
    """The table in numbers, one row per arm and profile; None where all devices are alike.

    Columns: arm, device, users, failed, score (mean of users), adapting and downloading (seconds,
    simulated). What nobody of a kind has is missing.
    """
    profiles = run.config.devices.profiles
    if len(profiles) == 1:
        return None
    users, metric = users_frame(run), metrics.headline(run.task)[0]
    known = metric in users
    rows = []
    for arm in run.arms:
        for profile in profiles:
            own = users[(users.arm == arm.name) & (users.device == profile.name)]
            rows.append(
                {
                    "arm": arm.name,
                    "device": profile.name,
                    "users": len(own),
                    "failed": int(own.failed.sum()),
                    "score": own[metric].mean() if known else None,
                    "adapting": own.train_seconds.mean() / profile.speed,
                    "downloading": _download(run, arm.name, profile, set(own.user)),
                }
            )
    return pd.DataFrame(rows)


def _download(run: Run, arm: str, profile: DeviceProfile, users: set[str]) -> float | None:
    """Mean time to fetch what this arm alone would need: its messages and the base model once."""
    if profile.link_mbit_s is None or not users:
        return None
    taken = sum(
        line.bytes
        for line in run.crossings
        if line.direction == DOWN and line.user in users and line.arm in ("", arm)
    )
    return taken / len(users) * BITS / (profile.link_mbit_s * MEGABIT)
