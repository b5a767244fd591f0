"""The audit of a finished run: exposure and membership for every user, from both sides.

leakage.jsonl has one line per arm and user, and one per user for the texts that the cloud wrote:

    {"arm", "user", "exposure": {"shared": [bits, ...], "unshared": [...]},
     "auc": {"shared": p, "unshared": p, "others": p}}

Of an arm the adapter is attacked: values of canaries are ranked, and records told from outsiders,
by how much the adapter lowers their loss against M_base. Outsiders are the user's own queries with
their gold answers, which no training saw, or, where a query has another form than a record
(LaMP-1), other users' records. "others" are further users' records against the same outsiders: how
far style alone fools the test. Of the cloud's texts the words are attacked: how many of a canary's
stand there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clients import folder as device_folder
from clients import outbound
from clients.folder import Device
from conf.schema import Config
from lamp import tasks
from lamp.records import Pair
from lamp.tasks import Task
from sim.folders import RunFolder
from sim.leakage.canaries import Canary, alternatives, canaries_of, is_canary, strangers
from sim.leakage.measure import auc, exposure
from storage import atomic, jsonlines
from strategy.arms import Arm, configured_arms
from strategy.augmentation import record_hash
from strategy.base_model import bases_root
from strategy.cache import Cache
from strategy.progress import Progress

FILE = "leakage.jsonl"
CLOUD = "cloud texts"
BATCH = 64
OTHERS = 20  # records of other users beside each user's own


@dataclass(frozen=True, slots=True)
class Audited:
    """What the audit knows of one user.

    Attributes:
        device: The device.
        canaries: All canaries of the user.
        sent: Ids of the records that the user ever shared in this run, at the largest ratio.
        outsiders: Records that no training saw.
        others: Records of other users.
    """

    device: Device
    canaries: tuple[Canary, ...]
    sent: frozenset[str]
    outsiders: tuple[Pair, ...]
    others: tuple[Pair, ...]

    @property
    def user(self) -> str:
        """The user's id."""
        return self.device.user_id


def audit(folder: RunFolder, progress: Progress) -> Path:
    """Attack every adapter and the cloud's texts; write leakage.jsonl and return its path."""
    config = folder.read_config()
    task = tasks.task(config.task)
    devices = [device_folder.read(path) for path in device_folder.device_folders(folder.devices)]
    users = [_audited(device, devices, task, config) for device in devices]
    arms = [arm for arm in configured_arms(config) if _has_private_adapter(arm)]
    rows = list(_cloud_rows(users, task, config))
    with progress.phase("leakage", len(arms) * len(users)) as phase:
        for arm in arms:
            for user in users:
                rows += _adapter_rows(user, arm, task, config)
                phase.advance()
    path = folder.path / FILE
    path.unlink(missing_ok=True)
    jsonlines.append(path, rows)
    return path


def _has_private_adapter(arm: Arm) -> bool:
    method = arm.method
    return bool(arm.adapter) and not (method.oracle or method.federated or method.adapter_of)


def _audited(device: Device, devices: Sequence[Device], task: Task, config: Config) -> Audited:
    number = config.privacy.canaries
    strange = [
        pair
        for other in devices
        if other.user_id != device.user_id
        for pair in other.history.pairs[:OTHERS]
        if not is_canary(pair.id)
    ]
    own = tuple(_as_pairs(device, task))
    return Audited(
        device=device,
        canaries=canaries_of(device.user_id, task, number, config.seed),
        sent=frozenset(pair.id for pair in outbound.grant(device, [1.0]).pairs),
        outsiders=own or tuple(strange[::2][:OTHERS]),
        others=tuple(strange[1::2][:OTHERS]),
    )


def _as_pairs(device: Device, task: Task) -> Iterable[Pair]:
    """The user's queries as records, where a query has the form of one."""
    if task.labels and not task.pair_labels:
        return
    for query in device.history.queries:
        if task.response_field:
            yield Pair(query.id, tasks.query_text(task, query), query.gold)
        else:
            yield Pair(query.id, query.gold, "")


def _cloud_rows(users: Sequence[Audited], task: Task, config: Config) -> Iterable[dict[str, Any]]:
    """How many words of each canary stand in what the cloud wrote for any user of this run."""
    records = [
        record_hash(pair) for user in users for pair in outbound.grant(user.device, [1.0]).pairs
    ]
    cache = Cache(Path(config.paths.cache) / "augmentation.sqlite")
    replies = [str(value["text"]) for value in cache.of_records(records) if "text" in value]
    written = frozenset(word for text in replies for word in _words_of(text))
    for user in users:
        bits: dict[str, list[float]] = {"shared": [], "unshared": []}
        found = {"shared": 0, "unshared": 0}
        for canary in user.canaries:
            side = _side(canary.id, user.sent)
            secret = _secret_words(canary, task)
            score = sum(word in written for word in secret)
            others = [
                sum(word in written for word in words[: len(secret)])
                for words in strangers(canary, user.user, config.seed)
            ]
            bits[side].append(exposure(score, others))
            found[side] += score > 0
        yield {"arm": CLOUD, "user": user.user, "exposure": bits, "found": found, "auc": {}}


def _secret_words(canary: Canary, task: Task) -> tuple[str, ...]:
    """The random words; a label is no secret."""
    return tuple(canary.key.split()) if task.pair_labels else canary.words


def _words_of(text: str) -> list[str]:
    return "".join(letter if letter.isalpha() else " " for letter in text.lower()).split()


def _side(record_id: str, sent: frozenset[str]) -> str:
    return "shared" if record_id in sent else "unshared"


def _adapter_rows(user: Audited, arm: Arm, task: Task, config: Config) -> list[dict[str, Any]]:
    from clients import adapters  # torch comes with it

    marker = adapters.adapter_folder(user.device, arm.adapter) / atomic.MARKER
    if not marker.is_file():  # this user failed in this arm
        return []
    sent = _sent_in(user, arm)
    attack = _Attack(user, arm, task, config, json.loads(marker.read_text())["base_id"])
    own = [pair for pair in user.device.history.pairs if not is_canary(pair.id)]
    scores = attack.drops(
        {
            "shared": [pair for pair in own if pair.id in sent],
            "unshared": [pair for pair in own if pair.id not in sent],
            "others": user.others,
            "outsiders": user.outsiders,
        }
    )
    outsiders = scores.pop("outsiders")
    bits: dict[str, list[float]] = {"shared": [], "unshared": []}
    for canary in user.canaries:
        others = alternatives(canary, user.user, task, config.seed)
        (secret, *ranked) = attack.drops({"": [each.pair(task) for each in (canary, *others)]})[""]
        bits[_side(canary.id, sent)].append(exposure(secret, ranked))
    return [
        {
            "arm": arm.name,
            "user": user.user,
            "exposure": bits,
            "auc": {side: auc(members, outsiders) for side, members in scores.items()},
        }
    ]


def _sent_in(user: Audited, arm: Arm) -> frozenset[str]:
    """What the user shared for this arm; nothing where the arm needs no records."""
    if not arm.method.needs_shares:
        return user.sent  # the adapter saw D_u alone: shared elsewhere or not, it should not matter
    return frozenset(pair.id for pair in outbound.grant(user.device, [arm.asked_ratio]).pairs)


class _Attack:
    """One adapter under attack: how much it lowers losses against M_base."""

    def __init__(self, user: Audited, arm: Arm, task: Task, config: Config, base_id: str) -> None:
        from clients import adapters
        from clients.base import load
        from protocol.settings import settings_of

        self._settings = settings_of(config)
        folder = bases_root(Path(config.paths.cache)) / base_id
        self._base = load(folder, self._settings.qlora, self._settings.torch_threads)
        self._task = task
        adapters.load_into(user.device, arm.adapter, self._base.model)

    def drops(self, named: Mapping[str, Sequence[Pair]]) -> dict[str, list[float]]:
        """Loss under M_base minus loss under the adapter, in nats per record."""
        from models import lora
        from models.chat import encode_pairs
        from models.losses import example_losses

        pairs = [pair for each in named.values() for pair in each]
        system, max_len = self._settings.system_prompt, self._settings.qlora.max_seq_len
        tokenizer, model = self._base.tokenizer, self._base.model
        encoded = encode_pairs(tokenizer, self._task, pairs, system=system, max_len=max_len)
        adapted = example_losses(model, encoded, tokenizer.pad_token_id, BATCH)
        with lora.disabled(model):
            plain = example_losses(model, encoded, tokenizer.pad_token_id, BATCH)
        gains = iter(before - after for before, after in zip(plain, adapted, strict=True))
        return {name: [next(gains) for _ in each] for name, each in named.items()}
