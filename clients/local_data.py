"""What a device adds to D_u by itself, from the records that it would share; nothing leaves it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from clients import outbound
from clients.base import Base
from clients.dac24.self_synthesis import synthesise
from clients.folder import Device
from conf.seeds import derive_seed
from lamp import eda
from lamp.records import Pair
from lamp.retrieval import nearest
from lamp.tasks import Task
from protocol.recipe import Recipe


def added_pairs(device: Device, recipe: Recipe, seed: int) -> tuple[Pair, ...]:
    """Make the copies or EDA variants that ``recipe`` adds, k of each covered record.

    Raises:
        DataError: If EDA needs WordNet and it is not on the device.
    """
    if recipe.local not in ("copies", "eda"):
        return ()
    make = {"copies": _copies, "eda": _variants}[recipe.local]
    covered = outbound.grant(device, [recipe.ratio]).pairs
    return tuple(made for pair in covered for made in make(pair, device.user_id, recipe, seed))


def own_texts(
    device: Device, base: Base, recipe: Recipe, seed: int, system: str | None
) -> tuple[Pair, ...]:
    """Let the device's own model write similar pairs, ``writing.sets`` of each covered record.

    What is a copy, or too unlike its record, is dropped (:mod:`clients.dac24.self_synthesis`).
    """
    if recipe.writing is None:
        return ()
    covered = outbound.grant(device, [recipe.ratio]).pairs
    own = derive_seed(seed, device.user_id, "own texts")
    written = synthesise(base, covered, recipe.writing, own, system).pairs
    return tuple(pair for each in written for pair in each)


def near_records(
    device: Device, recipe: Recipe, task: Task, public: tuple[Pair, ...]
) -> tuple[Pair, ...]:
    """Choose the public records that ``recipe`` adds: k nearest of each covered record."""
    if recipe.local != "neighbours":
        return ()
    covered = outbound.grant(device, [recipe.ratio]).pairs
    return tuple(pair for own in nearest(task, covered, public, recipe.k) for pair in own)


def _copies(pair: Pair, _user: str, recipe: Recipe, _seed: int) -> Iterator[Pair]:
    for number in range(recipe.k):
        yield replace(pair, id=f"{pair.id}/copy-{number}")


def _variants(pair: Pair, user: str, recipe: Recipe, seed: int) -> Iterator[Pair]:
    texts = eda.variants(
        pair.input,
        recipe.k,
        derive_seed(seed, user, pair.id, "eda"),
        eda.thesaurus(recipe.thesaurus),
        recipe.eda_rate,
    )
    for number, text in enumerate(texts):
        yield Pair(id=f"{pair.id}/eda-{number}", input=text, response=pair.response)
