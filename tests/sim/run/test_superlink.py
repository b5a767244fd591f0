"""A SuperLink of our own is open to whoever is on this machine, so nobody else may be."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from conf.compose import compose
from conf.errors import RunError
from sim.run import superlink

SOMEBODY = 1234


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Processes of these user ids: ``machine(0, 1234)`` gives the folder that lists them."""
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    owners: dict[str, int] = {}
    monkeypatch.setattr(superlink, "_owner", lambda path: owners[path.name])

    def machine(*users: int):
        for number, user in enumerate(users, start=1):
            (tmp_path / str(number)).mkdir(exist_ok=True)
            owners[str(number)] = user
        (tmp_path / "self").mkdir(exist_ok=True)
        return tmp_path

    return machine


def config(**engine):
    made = compose(["engine=flwr_run"])
    return replace(made, engine=replace(made.engine, **engine))


def test_services_and_ones_own_processes_are_nobody_else(machine):
    superlink.require_alone(config(), machine(0, 33, 999, 1000, 65534))


def test_beside_other_people_it_is_refused_unless_they_are_trusted(machine):
    folder = machine(0, 1000, SOMEBODY, SOMEBODY)
    with pytest.raises(
        RunError, match=r"1 other user\(s\) of this machine.*trust_local_users=true"
    ):
        superlink.require_alone(config(), folder)
    superlink.require_alone(config(trust_local_users=True), folder)


def test_the_owner_of_a_process_that_ended_counts_as_nobody(tmp_path):
    assert superlink._owner(tmp_path / "gone") == 0
    assert superlink._owner(tmp_path) == os.getuid()
