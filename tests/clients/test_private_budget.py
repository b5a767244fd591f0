"""A device composes the privacy loss of all its private trainings and refuses beyond its user's."""

from __future__ import annotations

from dataclasses import replace

import pytest

from clients import folder, policy
from clients.policy import Policy
from clients.private_budget import let_plain, spend
from conf.errors import BudgetError
from lamp.records import UserHistory
from models.private_training import Guarantee

GUARANTEE = Guarantee(epsilon=3.0, delta=1e-3, clip=1.0)


@pytest.fixture
def device(tmp_path):
    def make(**given) -> folder.Device:
        own = Policy(0.5, **{"epsilon": 8.0, **given})
        path = tmp_path / folder.folder_name("ana")
        if path.is_dir():
            policy.write(path, own)
        else:
            folder.create(tmp_path, UserHistory("ana", (), (), ()), own, b"k" * 32)
        return folder.read(path)

    return make


def train(device: folder.Device) -> None:
    spend(device, GUARANTEE, records=40, batch_size=8, steps=10)


def train_until_refused(device: folder.Device) -> None:
    for _ in range(40):
        try:
            train(device)
        except BudgetError:
            return
    raise AssertionError("43 trainings with epsilon 3 each are no more than 8")


def test_trainings_are_composed_and_the_one_too_many_is_refused(device):
    for _ in range(3):  # more than epsilon divided: composition is less than the sum
        train(device())
    train_until_refused(device())
    with pytest.raises(BudgetError, match="the user allows 8"):
        train(device())  # and after a restart


def test_a_simulation_counts_and_refuses_nothing(device):
    own = device(epsilon=None, noise="seeded", numbers="exact")
    let_plain(own)
    for _ in range(12):
        train(own)


@pytest.mark.parametrize("numbers", ["coarse", "exact"])
def test_numbers_without_noise_and_private_trainings_exclude_each_other(device, numbers):
    let_plain(device(numbers=numbers))
    with pytest.raises(BudgetError, match="left before"):
        train(device(numbers=numbers))


def test_a_private_device_lets_no_number_without_noise_go(device):
    train(device())
    with pytest.raises(BudgetError, match="void its epsilon"):
        let_plain(device())
    let_plain(replace(device(), policy=replace(device().policy, numbers="none")))
