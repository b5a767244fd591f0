"""What each kind of device got, needed and could not hold; only where kinds are told apart."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from conf.schema import DeviceProfile
from lamp import metrics
from sim.profiles import draw_profiles
from sim.report.frames import user_scores
from sim.report.pooling import failed_users
from sim.report.run_records import DOWN, ArmName, Run
from sim.report.tables import METRIC_TITLES, NOT_AVAILABLE, Table, duration, make_table, number

MEGABIT = 1e6
BITS = 8


def devices_table(run: Run) -> Table | None:
    """Per arm and profile: users, refusals, score, and simulated adaptation and download times."""
    profiles = run.config.devices.profiles
    if len(profiles) == 1:
        return None
    dealt = draw_profiles(run.registry, run.config.devices, run.config.seed)
    rows = [
        _row(run, arm, profile, [user for user in run.registry if dealt[user] == profile])
        for arm in run.arms
        for profile in profiles
    ]
    metric, _ = metrics.headline(run.task)
    score = f"{METRIC_TITLES[metric]}, mean of users"
    return make_table(
        ("Method", "Device", "Users", "Failed", score, "Adapting", "Downloading"), rows, 2
    )


def _row(run: Run, arm: ArmName, profile: DeviceProfile, users: Sequence[str]) -> list[str]:
    metric, _ = metrics.headline(run.task)
    scores = user_scores(run, arm.name)
    scored = [float(scores[user][metric]) for user in users if metric in scores.get(user, {})]
    trained = [line for user in users if (line := run.adaptations.get((arm.name, user)))]
    return [
        arm.name,
        profile.name,
        str(len(users)),
        str(len(failed_users(run, arm).intersection(users))),
        number(fmean(scored)) if scored else NOT_AVAILABLE,
        duration(fmean(line.seconds for line in trained) / profile.speed)
        if trained
        else NOT_AVAILABLE,
        _download(run, arm, profile, users),
    ]


def _download(run: Run, arm: ArmName, profile: DeviceProfile, users: Sequence[str]) -> str:
    """Mean time to fetch what this arm alone would need: its messages and the base model once."""
    if profile.link_mbit_s is None or not users:
        return NOT_AVAILABLE
    own = set(users)
    taken = sum(
        line.bytes
        for line in run.crossings
        if line.direction == DOWN and line.user in own and line.arm in ("", arm.name)
    )
    return duration(taken / len(users) * BITS / (profile.link_mbit_s * MEGABIT))
