"""The audit of a finished run: exposure and membership for every user, from both sides.

leakage.jsonl has one line per arm and user, and one per user for the texts that were shared and
that the cloud wrote:

    {"arm", "user", "exposure": {"shared": [bits, ...], "unshared": [...]},
     "auc": {"shared": p, "unshared": p, "others": p},
     "canary_auc": {"shared": p, "unshared": p},
     "tpr": {"records": {"0.01": {"shared": p, "unshared": p}, "0.001": ...}, "canaries": ...},
     "outsiders": {"records": n, "canaries": n}}
    {"arm": "cloud texts", "user", "exposure", "found", "auc": {},
     "group": {"majority": 0 or 1, "shared": ..., "cloud": ...},
     "linked": {"shared": p, "cloud": p, "chance": p}}

Of an arm the adapter is attacked: values of canaries are ranked, and records told from outsiders,
by how much the adapter lowers their loss against M_base. Outsiders are the user's own queries with
their gold answers, which no training saw, or, where a query has another form than a record
(LaMP-1), other users' records. "others" are further users' records against the same outsiders: how
far style alone fools the test. Outsiders of a canary are the values that it was not given: drawn as
its own was, so nothing but the training tells them apart, and hundreds of each. Thresholds at a
false-positive rate are those of all users' outsiders together.

Of the cloud's texts the words are attacked: how many of a canary's stand in one of them. Of the
texts that were shared and of the cloud's, what they say of who wrote them (:mod:`.texts`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from clients import folder as device_folder
from clients import outbound
from clients.folder import Device
from conf.schema import Config
from lamp import tasks
from lamp.records import Pair, UserHistory
from lamp.tasks import Task
from sim.folders import RunFolder
from sim.leakage import texts
from sim.leakage.canaries import (
    Canary,
    alternatives,
    canaries_of,
    is_canary,
    strangers,
    vocabulary,
    words_of,
)
from sim.leakage.measure import FEWEST_OUTSIDERS, auc, exposure, share_above, threshold
from storage import atomic, jsonlines
from strategy.arms import Arm, configured_arms
from strategy.augmentation import record_hash
from strategy.base_model import bases_root
from strategy.cache import Cache
from strategy.progress import Progress
from strategy.public import PublicUsers
from strategy.public import read as read_public

FILE = "leakage.jsonl"
CLOUD = "cloud texts"
BATCH = 64
OTHERS = 20  # records of other users beside each user's own
SIDES = ("shared", "unshared")


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

    @property
    def own_history(self) -> UserHistory:
        """The user's history without canaries."""
        history = self.device.history
        own = tuple(pair for pair in history.pairs if not is_canary(pair.id))
        return replace(history, pairs=own)


def audit(folder: RunFolder, progress: Progress) -> Path:
    """Attack every adapter and the cloud's texts; write leakage.jsonl and return its path."""
    config = folder.read_config()
    task = tasks.task(config.task)
    devices = [device_folder.read(path) for path in device_folder.device_folders(folder.devices)]
    server = json.loads(folder.server.read_text(encoding="utf-8"))
    public = read_public(PublicUsers(Path(server["public"]), server["content_hash"]))
    words = vocabulary(config.privacy.canary_words, public)
    users = [_audited(device, devices, task, config, words) for device in devices]
    arms = [arm for arm in configured_arms(config) if _has_private_adapter(arm)]
    rows = _text_rows(users, public, task, config, words)
    with progress.phase("leakage", len(arms) * len(users)) as phase:
        for arm in arms:
            attacked = []
            for user in users:
                attacked += _scores_of(user, arm, task, config, words)
                phase.advance()
            rows += _adapter_rows(arm, attacked)
    path = folder.path / FILE
    path.unlink(missing_ok=True)
    jsonlines.append(path, rows)
    return path


def _has_private_adapter(arm: Arm) -> bool:
    method = arm.method
    return bool(arm.adapter) and not (method.oracle or method.federated or method.adapter_of)


def _audited(
    device: Device,
    devices: Sequence[Device],
    task: Task,
    config: Config,
    words: tuple[str, ...],
) -> Audited:
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
        canaries=canaries_of(device.user_id, task, number, config.seed, words),
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


def _text_rows(
    users: Sequence[Audited],
    public: Sequence[UserHistory],
    task: Task,
    config: Config,
    words: tuple[str, ...],
) -> list[dict[str, Any]]:
    """Attack what was shared, and what the cloud wrote of it for any user of this run."""
    cache = Cache(Path(config.paths.cache) / "augmentation.sqlite")
    sent = {user.user: outbound.grant(user.device, [1.0]).pairs for user in users}
    replies = {
        user: [_replies(cache, pair) for pair in pairs if not is_canary(pair.id)]
        for user, pairs in sent.items()
    }
    every = cache.of_records(record_hash(pair) for pairs in sent.values() for pair in pairs)
    written = [frozenset(words_of(str(each["text"]))) for each in every if "text" in each]
    own = {
        user: [_document(pair) for pair in pairs if not is_canary(pair.id)]
        for user, pairs in sent.items()
    }
    groups = _guessed(users, public, task, config, {"shared": own, "cloud": replies})
    halves = {
        name: texts.linked(
            *({u: " ".join(t[half::2]) for u, t in found.items()} for half in (0, 1))
        )
        for name, found in (("shared", own), ("cloud", replies))
    }
    rows = []
    for user in users:
        linked = {name: found.get(user.user) for name, found in halves.items()}
        chance = 1 / len(halves["shared"]) if user.user in halves["shared"] else None
        rows.append(
            {
                "arm": CLOUD,
                "user": user.user,
                **_written_canaries(user, written, task, config, words),
                "auc": {},
                "group": groups.get(user.user, {}),
                "linked": {**linked, "chance": chance},
            }
        )
    return rows


def _document(pair: Pair) -> str:
    return f"{pair.input} {pair.response}"


def _replies(cache: Cache, pair: Pair) -> str:
    """What the cloud wrote of one record, all samples together."""
    values = cache.of_records([record_hash(pair)])
    return " ".join(str(value["text"]) for value in values if "text" in value)


def _guessed(
    users: Sequence[Audited],
    public: Sequence[UserHistory],
    task: Task,
    config: Config,
    sources: Mapping[str, Mapping[str, Sequence[str]]],
) -> dict[str, dict[str, float | None]]:
    """Per user with a group, from what texts it was guessed; and whether it is the majority's."""
    known = [
        (" ".join(_document(pair) for pair in user.pairs), group)
        for user in public
        if (group := texts.group_of(user, task, config)) is not None
    ]
    truth = {
        user.user: group
        for user in users
        if (group := texts.group_of(user.own_history, task, config)) is not None
    }
    found: dict[str, dict[str, float | None]] = {user: {} for user in truth}
    for name, by_user in sources.items():
        documents = {user: " ".join(by_user[user]) for user in truth}
        guesses, majority = texts.guessed_groups(known, documents)
        for user, group in truth.items():
            found[user]["majority"] = float(group == majority)
            found[user][name] = float(guesses[user] == group) if user in guesses else None
    return found


def _written_canaries(
    user: Audited,
    written: Sequence[frozenset[str]],
    task: Task,
    config: Config,
    words_of_canaries: tuple[str, ...],
) -> dict[str, Any]:
    """How many words of each canary stand in one reply, beside other words drawn alike."""
    bits: dict[str, list[float]] = {side: [] for side in SIDES}
    found = dict.fromkeys(SIDES, 0)
    for canary in user.canaries:
        side = _side(canary.id, user.sent)
        secret = _secret_words(canary, task)
        score = _most_in_one(secret, written)
        others = [
            _most_in_one(words[: len(secret)], written)
            for words in strangers(canary, user.user, config.seed, words_of_canaries)
        ]
        bits[side].append(exposure(score, others))
        found[side] += score > max(others)
    return {"exposure": bits, "found": found}


def _most_in_one(secret: Sequence[str], written: Sequence[frozenset[str]]) -> int:
    wanted = frozenset(secret)
    return max((len(wanted & words) for words in written), default=0)


def _secret_words(canary: Canary, task: Task) -> tuple[str, ...]:
    """The random words; a label is no secret."""
    return tuple(canary.key.split()) if task.pair_labels else canary.words


def _side(record_id: str, sent: frozenset[str]) -> str:
    return "shared" if record_id in sent else "unshared"


@dataclass(frozen=True, slots=True)
class _Attacked:
    """Scores of one user's adapter; of records and of canaries, the higher the more a member's.

    Attributes:
        user: Whose adapter.
        records: Per class of records their scores.
        canaries: Per side the scores of the planted canaries.
        exposures: Per side their exposures, bits.
        never: Scores of the values that no canary was given.
    """

    user: str
    records: Mapping[str, list[float]]
    canaries: Mapping[str, list[float]]
    exposures: Mapping[str, list[float]]
    never: list[float]


def _scores_of(
    user: Audited, arm: Arm, task: Task, config: Config, words: tuple[str, ...]
) -> list[_Attacked]:
    from clients import adapters  # torch comes with it

    marker = adapters.adapter_folder(user.device, arm.adapter) / atomic.MARKER
    if not marker.is_file():  # this user failed in this arm
        return []
    sent = _sent_in(user, arm)
    attack = _Attack(user, arm, task, config, json.loads(marker.read_text())["base_id"])
    own = user.own_history.pairs
    scores = attack.drops(
        {
            "shared": [pair for pair in own if pair.id in sent],
            "unshared": [pair for pair in own if pair.id not in sent],
            "others": user.others,
            "outsiders": user.outsiders,
        }
    )
    bits: dict[str, list[float]] = {side: [] for side in SIDES}
    planted: dict[str, list[float]] = {side: [] for side in SIDES}
    never: list[float] = []
    for canary in user.canaries:
        others = alternatives(canary, user.user, task, config.seed, words)
        (secret, *ranked) = attack.drops({"": [each.pair(task) for each in (canary, *others)]})[""]
        side = _side(canary.id, sent)
        bits[side].append(exposure(secret, ranked))
        planted[side].append(secret)
        never += ranked
    return [_Attacked(user.user, scores, planted, bits, never)]


def _adapter_rows(arm: Arm, attacked: Sequence[_Attacked]) -> list[dict[str, Any]]:
    """One row per user; thresholds are those of all users' outsiders."""
    outsiders = {
        "records": [score for each in attacked for score in each.records["outsiders"]],
        "canaries": [score for each in attacked for score in each.never],
    }
    limits = {
        what: {rate: threshold(scores, rate) for rate in FEWEST_OUTSIDERS}
        for what, scores in outsiders.items()
    }
    return [
        {
            "arm": arm.name,
            "user": each.user,
            "exposure": each.exposures,
            "auc": {
                side: auc(members, each.records["outsiders"])
                for side, members in each.records.items()
                if side != "outsiders"
            },
            "canary_auc": {side: auc(each.canaries[side], each.never) for side in SIDES},
            "tpr": {
                what: {
                    str(rate): {side: share_above(scores[side], limit) for side in SIDES}
                    for rate, limit in limits[what].items()
                }
                for what, scores in (("records", each.records), ("canaries", each.canaries))
            },
            "outsiders": {what: len(scores) for what, scores in outsiders.items()},
        }
        for each in attacked
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
