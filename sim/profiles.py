"""Which user has which kind of device: dealt by shares, from the run's seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from conf.schema import DeviceProfile, DevicesConfig
from conf.seeds import derive_seed


def draw_profiles(
    user_ids: Sequence[str], devices: DevicesConfig, seed: int
) -> dict[str, DeviceProfile]:
    """Deal the device profiles to the users by their shares, in a seeded order of the users."""
    sizes = largest_remainder([each.share for each in devices.profiles], len(user_ids))
    generator = np.random.default_rng(derive_seed(seed, "profiles"))
    shuffled = [sorted(user_ids)[index] for index in generator.permutation(len(user_ids))]
    dealt = [each for each, size in zip(devices.profiles, sizes, strict=True) for _ in range(size)]
    return dict(zip(shuffled, dealt, strict=True))


def largest_remainder(shares: Sequence[float], total: int) -> list[int]:
    """Part ``total`` by shares into whole numbers that add up to it (Hamilton's method)."""
    exact = [share * total / sum(shares) for share in shares]
    sizes = [int(value) for value in exact]
    by_remainder = sorted(range(len(exact)), key=lambda index: sizes[index] - exact[index])
    for index in by_remainder[: total - sum(sizes)]:
        sizes[index] += 1
    return sizes
