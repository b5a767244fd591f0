"""The privacy loss of all private trainings of D_u together, and what would void the statement.

    <folder>/private.jsonl   sigma, sampling rate and steps of every private training
    <folder>/plain.json      there once numbers of a training without noise have left

The accountant composes all trainings, whichever arms, servers and days they were for: each adapter
sees the same records. Numbers that left without noise have no epsilon, so a real device lets
either those or private adapters' numbers go, not both.
"""

from __future__ import annotations

from clients.folder import Device
from conf.errors import BudgetError
from models.private_training import AccountedTraining, Guarantee, composed_epsilon, plan
from storage import atomic, chain, jsonlines
from storage.locks import locked

FILE = "private.jsonl"
PLAIN = "plain.json"


def spend(device: Device, guarantee: Guarantee, records: int, batch_size: int, steps: int) -> None:
    """Note a private training before it begins.

    Raises:
        BudgetError: If all trainings together would lose more than the user allows, or numbers
            without noise left before.
    """
    policy = device.policy
    if policy.noise == "system" and (device.folder / PLAIN).is_file():
        raise BudgetError(
            f"user {device.user_id}: numbers of trainings without noise left before; no private "
            "training can hide these records any more"
        )
    if not steps or not records:
        return
    training = plan(guarantee, records, batch_size, steps)
    with locked(device.folder / ".private.lock"):
        before = [
            AccountedTraining(line["sigma"], line["rate"], line["steps"])
            for line in jsonlines.read(device.folder / FILE)
        ]
        if policy.epsilon is not None:
            lost = composed_epsilon([*before, training], policy.delta)
            if lost > policy.epsilon:
                raise BudgetError(
                    f"user {device.user_id}: {len(before)} private trainings before; one more "
                    f"would lose epsilon {lost:.2f}, the user allows {policy.epsilon:g}"
                )
        line = {"sigma": training.sigma, "rate": training.rate, "steps": training.steps}
        chain.append(device.folder / FILE, [line])


def let_plain(device: Device) -> None:
    """Note that numbers of a training, or of prompts, without noise are about to leave.

    Raises:
        BudgetError: If private trainings were stated before, which these numbers would void.
    """
    policy = device.policy
    if policy.noise != "system" or policy.numbers == "none":
        return
    if (device.folder / FILE).is_file():
        raise BudgetError(
            f"user {device.user_id}: this device trained privately; numbers without noise would "
            "void its epsilon, set numbers=none or leave the other methods out"
        )
    if not (device.folder / PLAIN).is_file():
        atomic.write_json(device.folder / PLAIN, {})
