"""From official files to users: who is adapted and scored, who is public, and what D_u holds.

Everything about the data that can be wrong is found here, before any model is loaded. Target users
are the longest histories, ties by user id; all others are the public users, except those that
``skip_users`` sets aside. A target user's query whose text stands in the user's own history is
counted, and left out unless ``evaluation.exclude_contaminated`` is off.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from conf.checks import MINIATURE
from conf.errors import ConfigError, DataError
from conf.schema import Config, DriftConfig, WorldConfig
from lamp import drift, holdout
from lamp.contamination import given_away, kept_apart, person_notes
from lamp.dialogue.users import dialogue_users
from lamp.holdout import Portion
from lamp.official import read_official
from lamp.oppu import read_oppu
from lamp.records import Query, UserHistory
from lamp.splits import Member, Split, split_questions
from lamp.tasks import Task, make_pair, task
from storage import atomic
from storage.hashing import hash_json

if TYPE_CHECKING:
    from datasets import Dataset

NO_PUBLIC = "no public users are left to tune base models on"
_COLUMNS = ("id", "input", "response")


@dataclass(frozen=True, slots=True)
class LampData:
    """One task's users.

    Attributes:
        task: The task.
        targets: Users that are adapted and scored, sorted by user id.
        public: Users that base models may be tuned on, sorted by user id.
        split: "time", "user", "holdout", "oppu" or "dialogue".
        contaminated: Target user -> ids of the queries that the user's own history gives away.
        notes: What the log and the report should say about the data.
        skipped: Ids of the users with even longer histories that ``skip_users`` set aside, and of
            target users of OPPU's files beyond ``users``.
        ages: Query id -> whole years since ``drift.cut``; empty without one.
        left_out: Records of public users that are left out as a target or skipped user has, or is
            asked, the same.
        lengths: User -> records before anything was held or left out; what users are ranked by.
    """

    task: Task
    targets: tuple[UserHistory, ...]
    public: tuple[UserHistory, ...]
    split: str
    contaminated: Mapping[str, tuple[str, ...]]
    notes: tuple[str, ...]
    skipped: tuple[str, ...] = ()
    ages: Mapping[str, int] = field(default_factory=dict)
    left_out: int = 0
    lengths: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Targets:
    """Who is adapted and scored, and on what.

    Attributes:
        users: How many: the longest histories.
        skip: So many even longer ones are left out.
        portion: What is taken of every user's records and queries.
        records: Records of these users at most, after the portion; None for all.
        exclude_contaminated: Leave out queries whose text stands in the user's own history.
        max_words: Words of a field that training sees.
    """

    users: int
    skip: int
    portion: Portion
    records: int | None
    exclude_contaminated: bool
    max_words: int


def load(config: Config) -> LampData:
    """Read, check and group the configured data.

    For ``data=miniature`` the world is written first, once per world configuration.

    Raises:
        DataError: If a file, record or field cannot be used, or there are too few users.
        ConfigError: If the configuration asks for what the data cannot give.
    """
    chosen = task(config.task)
    if config.drift.cut is not None:
        holdout.check_task(chosen, "drift.cut")
    if config.split == "holdout":
        holdout.check_task(chosen, "split=holdout")
    max_words = config.task.max_field_words
    targets = Targets(
        users=config.users,
        skip=config.skip_users,
        portion=Portion(
            holdout=config.holdout if config.split == "holdout" else None,
            max_records=config.max_records,
            max_queries=config.max_queries,
            seed=config.split_seed,
        ),
        records=config.target_records,
        exclude_contaminated=config.evaluation.exclude_contaminated,
        max_words=max_words,
    )
    if chosen.dialogues:
        _check_limits(config)
        users, notes = dialogue_users(config.data, config.dialogue, max_words)
        return _assign(targets, chosen, Split("dialogue", (), notes), users)
    if config.files == "oppu":
        found = read_oppu(Path(config.data).expanduser(), chosen)
        users = _histories(found.split, found.golds, chosen, max_words)
        return _assign(targets, chosen, found.split, users, found.targets)
    if config.data != MINIATURE:
        folder = Path(config.data).expanduser()
    else:
        folder = _miniature(config.task.name, config.part, config.world, Path(config.paths.cache))
    official = read_official(folder, chosen, config.part, config.split)
    split = split_questions(official.questions, config.split, official.where)
    split = replace(split, notes=(*official.notes, *split.notes))
    users = _histories(split, official.golds, chosen, max_words)
    if config.drift.cut is not None:
        return _assign_cut(targets, config.drift, chosen, split, users)
    return _assign(targets, chosen, split, users)


def _check_limits(config: Config) -> None:
    for key in ("max_records", "target_records", "max_queries"):
        if getattr(config, key) is not None:
            raise ConfigError(
                f"{key} does not apply to dialogues; set dialogue.records and dialogue.queries"
            )


def pseudo_targets(
    data: LampData, users: int, *, exclude_contaminated: bool, max_words: int
) -> LampData:
    """Set the longest histories among the public users apart, to choose settings on.

    They are freed of contaminated queries as target users are, and the other public users of what
    these have as well; how records and queries were taken stays. Of the target users themselves
    nothing is left but their ids and how many records they have.

    Args:
        data: Loaded data; only the public users' records are looked at.
        users: How many.
        exclude_contaminated: Leave out queries whose text stands in the user's own history.
        max_words: Words of a field that training sees.

    Raises:
        ConfigError: If not more public users than these are there.
    """
    if len(data.public) <= users:
        raise ConfigError(
            f"tune.users: {users} pseudo-target users are asked for, and public users besides them "
            f"to tune on; there are {len(data.public)} public users beside the "
            f"{len(data.targets)} target users; lower tune.users or users"
        )
    ranked = sorted(data.public, key=lambda user: _rank(user, data.lengths))
    targets, contaminated = _scored(ranked[:users], data.task, exclude_contaminated, None)
    public = kept_apart(ranked[users:], ranked[:users], data.task, max_words)
    contamination = _contamination_notes(contaminated, targets, exclude_contaminated)
    return LampData(
        task=data.task,
        targets=_by_id(targets),
        public=_by_id(public.users),
        split=data.split,
        contaminated=contaminated,
        notes=(*public.notes(), *contamination),
        skipped=tuple(sorted((*data.skipped, *(user.user_id for user in data.targets)))),
        lengths=data.lengths,
    )


def corpus_users(data: LampData, unseen: int, max_words: int) -> tuple[UserHistory, ...]:
    """Return everybody but the longest histories: whose text may teach the miniature models.

    Args:
        data: Loaded data.
        unseen: So many of the longest histories stay unseen, and what others have in common with
            them too; never fewer than the target and skipped users. So runs with up to ``unseen``
            target users share the same models.
        max_words: Where fields were cut.

    Raises:
        ConfigError: If nobody is left.
    """
    ranked = sorted(data.public, key=lambda user: _rank(user, data.lengths))
    longest = set(sorted(data.lengths, key=lambda name: (-data.lengths[name], name))[:unseen])
    if not data.lengths:
        longest = {user.user_id for user in ranked[: max(0, unseen - _set_apart(data))]}
    held = [user for user in ranked if user.user_id in longest]
    others = [user for user in data.public if user.user_id not in longest]
    left = kept_apart(others, held, data.task, max_words).users
    if not left:
        raise ConfigError(
            f"model.build.holdout: {len(data.public)} public users are left besides the "
            f"{len(data.targets)} target users, and the {unseen} longest histories are held out; "
            "lower it, or take more data (world.population for the miniature world)"
        )
    return left


def _set_apart(data: LampData) -> int:
    return len(data.targets) + len(data.skipped)


def as_dataset(user: UserHistory) -> Dataset:
    """Return D_u as a ``datasets.Dataset`` with the string columns id, input, response."""
    from datasets import Dataset, Features, Value

    columns = {name: [getattr(pair, name) for pair in user.pairs] for name in _COLUMNS}
    return Dataset.from_dict(columns, Features({name: Value("string") for name in _COLUMNS}))


def _miniature(task: str, part: str, config: WorldConfig, cache: Path) -> Path:
    """Write the miniature world unless it is there; its folder is named by what makes it.

    Raises:
        ConfigError: If ``part`` is another one than the world has.
    """
    from lamp import world

    if part != "dev":
        raise ConfigError(f"part: the miniature world has part=dev only, got '{part}'")
    # what is off shapes nothing, so that worlds from before the key stay where they are
    off = () if config.drift else ("drift",)
    shaping = {key: value for key, value in asdict(config).items() if key not in off}
    identity = {"task": task, "world": shaping, "version": world.VERSION}
    folder = cache / "worlds" / hash_json(identity)
    if not atomic.is_whole(folder):
        with atomic.new_folder(folder, marker=identity) as temporary:
            world.write_world(temporary, task, config)
    return folder


def _histories(
    split: Split, golds: Mapping[str, str], task: Task, max_words: int
) -> tuple[UserHistory, ...]:
    return tuple(_history(member, golds, task, max_words) for member in split.members)


def _history(member: Member, golds: Mapping[str, str], task: Task, max_words: int) -> UserHistory:
    queries = tuple(Query(each.id, each.input, golds[each.id]) for each in member.questions)
    pairs = tuple(make_pair(task, item, max_words) for item in member.profile)
    return UserHistory(member.user_id, member.profile, pairs, queries)


def _rank(user: UserHistory, lengths: Mapping[str, int]) -> tuple[int, str]:
    return -lengths.get(user.user_id, len(user.profile)), user.user_id


def _assign_cut(
    wanted: Targets, settings: DriftConfig, task: Task, split: Split, users: Sequence[UserHistory]
) -> LampData:
    """Assign users whose histories are cut at a date.

    Who is a target user depends on the cut alone, never on ``drift.refresh``; public users stay as
    they were at the cut.
    """
    whole = {user.user_id: user for user in users}
    cut = [drift.cut_history(user, task, settings) for user in users]
    able = [each for each in cut if drift.is_scorable(each, settings.years)]
    if len(able) < wanted.skip + wanted.users:
        raise DataError(
            f"users: {wanted.users} target users are asked for, {len(able)} of the {len(users)} "
            f"users of {task.name} have records before drift.cut={settings.cut} and in each of the "
            f"{settings.years} years after it; lower `users` or `drift.years`, or cut elsewhere"
        )
    data = _assign(wanted, task, Split(split.name, (), split.notes), [c.history for c in able])
    set_apart = {*(user.user_id for user in data.targets), *data.skipped}
    others = [each for each in cut if each.history.user_id not in set_apart]
    known = [drift.as_public(each, task) for each in others if each.history.pairs]
    private = [whole[name] for name in set_apart]
    public = kept_apart(known, private, task, wanted.max_words)
    targets = [
        drift.cut_history(whole[user.user_id], task, settings, settings.refresh)
        for user in data.targets
    ]
    kept = [note for note in data.notes if note != NO_PUBLIC or not public.users]
    return replace(
        data,
        targets=tuple(each.history for each in targets),
        public=_by_id(public.users),
        notes=(*kept, *public.notes(), *drift.notes(settings, targets, len(others) - len(known))),
        left_out=public.records,
        ages={query: age for each in targets for query, age in each.ages.items()},
        lengths={},
    )


def _assign(
    wanted: Targets,
    task: Task,
    split: Split,
    users: Sequence[UserHistory],
    named: Collection[str] | None = None,
) -> LampData:
    """Part users into target and public ones; ``named`` are those that alone may be target users.

    Named users beyond ``users`` are neither.
    """
    ordered = sorted(users, key=lambda user: _rank(user, {}))
    eligible = [user for user in ordered if named is None or user.user_id in named]
    whole = [*eligible, *(user for user in ordered if named and user.user_id not in named)]
    first, last = wanted.skip, wanted.skip + wanted.users
    if last > len(eligible):
        skipped = f" after skip_users={first}" if first else ""
        raise DataError(
            f"users: {wanted.users} target users are asked for{skipped}, the data of {task.name} "
            f"has {len(eligible)}; lower `users` or take more data"
        )
    set_apart = last if named is None else len(eligible)
    portion = replace(wanted.portion, by_date=holdout.all_dated(whole))
    ranked, parts = holdout.take_parts(whole, task, portion)
    exclude = wanted.exclude_contaminated
    targets, contaminated = _scored(ranked[first:last], task, exclude, portion.max_queries)
    targets, few = holdout.limit_records(targets, task, portion, wanted.records)
    public = kept_apart(ranked[set_apart:], whole[:last], task, wanted.max_words)
    notes = (
        *split.notes,
        *parts,
        *few,
        *person_notes(whole),
        *public.notes(),
        *_tie_notes(eligible, first, last),
        *_label_notes(ranked, task),
        *_contamination_notes(contaminated, targets, exclude),
        *(() if public.users else (NO_PUBLIC,)),
    )
    return LampData(
        task=task,
        targets=_by_id(targets),
        public=_by_id(holdout.first_queries(public.users, portion.max_queries)),
        split=split.name,
        contaminated=contaminated,
        notes=notes,
        skipped=tuple(sorted(user.user_id for user in (*ranked[:first], *ranked[last:set_apart]))),
        left_out=public.records,
        lengths={user.user_id: len(user.profile) for user in whole},
    )


def _scored(
    targets: Sequence[UserHistory], task: Task, exclude: bool, most: int | None
) -> tuple[list[UserHistory], dict[str, tuple[str, ...]]]:
    """Target users with the queries that are scored, and the ids of the contaminated ones."""
    if not exclude:
        targets = holdout.first_queries(targets, most)
    contaminated = {
        user.user_id: ids
        for user in sorted(targets, key=lambda user: user.user_id)
        if (ids := given_away(user, task))
    }
    if exclude:
        clean = [_without(user, contaminated.get(user.user_id, ())) for user in targets]
        targets = holdout.first_queries(clean, most)
    return list(targets), contaminated


def _by_id(users: Iterable[UserHistory]) -> tuple[UserHistory, ...]:
    return tuple(sorted(users, key=lambda user: user.user_id))


def _without(user: UserHistory, identifiers: Sequence[str]) -> UserHistory:
    kept = tuple(query for query in user.queries if query.id not in identifiers)
    return replace(user, queries=kept)


def _tie_notes(ranked: Sequence[UserHistory], first: int, last: int) -> Iterable[str]:
    for border in (first, last):
        if not 0 < border < len(ranked):
            continue
        length = len(ranked[border].profile)
        if length == len(ranked[border - 1].profile):
            tied = sum(len(user.profile) == length for user in ranked)
            yield (
                f"users with a history of {length} records: {tied} of {len(ranked)}; among them "
                f"the choice at place {border} is by user id, not by length"
            )


def _label_notes(users: Iterable[UserHistory], task: Task) -> Iterable[str]:
    if not task.pair_labels:
        return
    pairs = [pair for user in users for pair in user.pairs]
    strange = sum(pair.response not in task.pair_labels for pair in pairs)
    if strange:
        yield f"history records with a response outside the label set: {strange} of {len(pairs)}"


def _contamination_notes(
    contaminated: Mapping[str, Sequence[str]], targets: Iterable[UserHistory], excluded: bool
) -> Iterable[str]:
    if contaminated:
        count = sum(map(len, contaminated.values()))
        fate = "left out" if excluded else "scored all the same"
        users = len(contaminated)
        yield f"queries that stand in the user's own history: {count}, of {users} users; {fate}"
    silent = sum(not user.queries for user in targets)
    if silent:
        yield f"target users without a query: {silent}; they are adapted but not scored"
