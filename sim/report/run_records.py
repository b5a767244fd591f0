"""Read a run folder: its JSON-lines files become frozen records, each line checked.

A resumed run may hold a line twice (same arm, user, query); the last one counts. Nothing here
computes: pooling is :mod:`.pooling`, intervals are :mod:`sim.statistics`. Missing files are
empty parts, so that a run that stopped half-way can be reported.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from conf.compose import from_json
from conf.errors import CdcdaError, RunError
from conf.schema import Config
from lamp import tasks
from lamp.metrics import QueryScore
from lamp.tasks import Task
from storage import jsonlines
from strategy.arms import Arm, configured_arms
from strategy.diagnosis import Diagnosis
from strategy.methods import METHODS

LINE = ConfigDict(extra="ignore")  # a line may say more than is read here
UP = "device -> server"
DOWN = "server -> device"
LOSS_GAPS = "loss_gaps.jsonl"
BASE_MODEL = "M_base"  # noted for a virtual device
SENT_MODEL = "query.base"  # sent to a real one

K = TypeVar("K")
T = TypeVar("T")


@checked(frozen=True, slots=True, kw_only=True, config=LINE)
class Answer:
    """One line of answers.jsonl: a query's numbers, or the sums of a user (``query`` is None)."""

    arm: str
    user: str
    query: str | None
    provenance_key: str = ""  # names adapter, model and prompts
    of: int | None = None  # lines that the user's answers have
    parsed: bool | None = None
    gold: int | None = None
    prediction: int | None = None
    error: float | None = None
    rouge1: float | None = None
    rougeL: float | None = None  # noqa: N815 - the metric's own name
    bertscore: float | None = None
    unicode_rouge1: float | None = None
    queries: int = 1
    seconds: float = 0.0  # of all the user's answers together
    tokens: int = 0
    shortened: int = 0  # of the user's queries; as seconds and tokens of all together
    text: str | None = None  # only where case studies were asked for
    gold_text: str | None = None
    sums: tuple[float, ...] | None = None  # as lamp.metrics.sums has them

    @property
    def score(self) -> QueryScore:
        """The numbers as :mod:`lamp.metrics` knows them."""
        return QueryScore(
            parsed=bool(self.parsed),
            gold=self.gold,
            prediction=self.prediction,
            error=self.error,
            rouge1=self.rouge1,
            rougeL=self.rougeL,
            bertscore=self.bertscore,
            unicode_rouge1=self.unicode_rouge1,
        )


@checked(frozen=True, slots=True, kw_only=True, config=LINE)
class Adaptation:
    """What one adapter's training took: a line of adaptations.jsonl, or a federated one's sum."""

    arm: str
    user: str
    round: int = 0  # of a federated training
    steps: int
    records: int
    synthetic: int
    losses: tuple[float, ...]
    seconds: float
    tokens: int
    peak_memory_bytes: int
    adapter_bytes: int
    # of devices that see their history as a stream: protocol.messages.AdaptReply
    curve_seen: tuple[int, ...] = ()
    curve: tuple[float, ...] = ()
    epoch_seconds: tuple[float, ...] = ()
    phase_seconds: tuple[float, ...] = ()
    annotations: int = 0
    synthesis: tuple[int, ...] = ()
    buffer_bytes: int = 0
    shortened: int = 0
    variation: tuple[float, ...] = ()
    gate: int = -1  # 1: the adapter is used, 0: M_base answers instead; -1 without a gate
    reductions: int = 0


@checked(frozen=True, slots=True, kw_only=True, config=LINE)
class Augmentation:
    """One line of augmentation.jsonl: kept + rejected = generated."""

    arm: str
    user: str
    shared: int
    generated: int
    kept: int
    rejected: dict[str, int]
    history: int | None = None
    kept_by: dict[str, int] = field(default_factory=dict)
    input_words: int | None = None
    response_words: int | None = None


@checked(frozen=True, slots=True, kw_only=True, config=LINE)
class CandidateScores:
    """One line of filter_scores.jsonl: what the filters judge one candidate by."""

    user: str
    unreadable: str | None = None
    entails: float | None = None
    entailed: float | None = None
    rouge_l: float | None = None
    length_ratio_characters: float | None = None
    length_ratio_words: float | None = None


@checked(frozen=True, slots=True, kw_only=True, config=LINE)
class LossGap:
    """One line of loss_gaps.jsonl: mean loss per scored token of one user's adapter."""

    arm: str
    user: str
    own: float
    held_out: float


@checked(frozen=True, slots=True, kw_only=True, config=LINE)
class Failure:
    """One line of failures.jsonl; ``arm`` is empty where the message served all arms."""

    arm: str
    user: str
    phase: str
    kind: str
    reason: str


@checked(frozen=True, slots=True, kw_only=True, config=LINE)
class Phase:
    """One line of rounds.jsonl; ``arm`` is empty for what all arms share."""

    arm: str
    phase: str
    seconds: float
    cut_pairs: int = 0  # candidates that were judged by a part of their text


@checked(frozen=True, slots=True, kw_only=True, config=LINE)
class Crossing:
    """One line of ledger.jsonl: one message, or the one-time delivery of M_base."""

    user: str
    direction: str
    kind: str
    arm: str
    records: int
    bytes: int
    redelivery: bool


@dataclass(frozen=True, slots=True)
class ArmName:
    """One arm of a run.

    Attributes:
        name: As in the files, e.g. "cdcda@0.5".
        method: Method.
        ratio: Share ratio that the server asked for; None: all that each user allows.
        k: Samples per shared record; None where the arm has no number of its own.
        thresholds: Filter thresholds of its own, by name.
        epsilon: Privacy loss of its own under DP-SGD; None where the run has one at most.
    """

    name: str
    method: str
    ratio: float | None
    k: int | None = None
    thresholds: tuple[tuple[str, float], ...] = ()
    epsilon: float | None = None

    @property
    def plain(self) -> bool:
        """Whether method and ratio say all of it: no k, thresholds or epsilon of its own."""
        return self.k is None and not self.thresholds and self.epsilon is None


@dataclass(frozen=True, slots=True)
class Preference:
    """The largest share that a user allows, as the simulator drew it; for pictures only."""

    ratio: float
    group: str


@dataclass(frozen=True, slots=True)
class Run:
    """What one run left behind.

    Attributes:
        folder: The run folder.
        config: Configuration of the run.
        task: Its task.
        manifest: manifest.json as it stands; {} where there is none.
        arms: Arms in the order of the configuration.
        registry: Target users, sorted.
        answers: Per arm, in gold order.
        adaptations: Per (arm, user).
        augmentations: Per (arm, user).
        candidates: Scores of every candidate, for all arms.
        failures: Messages without a good reply.
        phases: Time per arm and phase, in the order they ran.
        crossings: Everything that crossed the wire.
        preferences: Per user.
        diagnoses: What the synthetic pairs of each arm are worth.
        loss_gaps: Losses of the adapters, where ``python -m sim diagnose`` measured them.
    """

    folder: Path
    config: Config
    task: Task
    manifest: Mapping[str, Any]
    arms: tuple[ArmName, ...]
    registry: tuple[str, ...]
    answers: Mapping[str, tuple[Answer, ...]]
    adaptations: Mapping[tuple[str, str], Adaptation]
    augmentations: Mapping[tuple[str, str], Augmentation]
    failures: tuple[Failure, ...]
    phases: tuple[Phase, ...]
    crossings: tuple[Crossing, ...]
    preferences: Mapping[str, Preference]
    diagnoses: tuple[Diagnosis, ...] = ()
    loss_gaps: tuple[LossGap, ...] = ()
    candidates: tuple[CandidateScores, ...] = ()

    @property
    def world(self) -> str:
        """Where the data come from, fit for a title: never a path of this machine."""
        return "miniature world" if self.config.data == "miniature" else Path(self.config.data).name


def read_run(folder: Path) -> Run:
    """Read everything that a run wrote.

    Raises:
        RunError: If the folder is no run folder, or a file in it was damaged.
    """
    config = _read_config(folder)
    manifest = _read_json(folder / "manifest.json", {})
    answers = _whole(_lines(Answer, folder / "answers.jsonl"))
    adaptations = _over_rounds(_lines(Adaptation, folder / "adaptations.jsonl"))
    failures = _lines(Failure, folder / "failures.jsonl")
    named = [*(answer.arm for answer in answers), *(arm for arm, _ in adaptations)]
    users = {answer.user for answer in answers} | {user for _, user in adaptations}
    return Run(
        folder=folder,
        config=config,
        task=tasks.task(config.task),
        manifest=manifest,
        arms=_arms(config, named),
        registry=_read_roster(folder / "registry.json") or tuple(sorted(users)),
        answers=_by_arm(answers, manifest.get("gold_order", ())),
        adaptations=adaptations,
        augmentations=_last(_lines(Augmentation, folder / "augmentation.jsonl"), _arm_and_user),
        failures=tuple(_last(failures, lambda f: (f.arm, f.user, f.phase)).values()),
        phases=tuple(_lines(Phase, folder / "rounds.jsonl")),
        crossings=tuple(_lines(Crossing, folder / "ledger.jsonl")),
        preferences=_read_preferences(folder / "policies.csv"),
        diagnoses=tuple(
            _last(
                _lines(Diagnosis, folder / "diagnosis.jsonl"), lambda d: (d.arm, d.group)
            ).values()
        ),
        candidates=tuple(_lines(CandidateScores, folder / "filter_scores.jsonl")),
        loss_gaps=tuple(_last(_lines(LossGap, folder / LOSS_GAPS), _arm_and_user).values()),
    )


def _read_config(folder: Path) -> Config:
    path = folder / "config.json"
    if not path.is_file():
        raise RunError(
            f"{folder.name}: expected a run folder with config.json, found none; "
            "give the folder or the name of a run"
        )
    try:
        return from_json(path.read_text(encoding="utf-8"))
    except CdcdaError as error:
        raise RunError(
            f"{folder.name}/config.json: {error}; the run was made by another version"
        ) from error


def _read_json(path: Path, default: Any) -> Any:
    if not path.is_file():
        return default
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(
            f"{path.parent.name}/{path.name}: expected JSON, got a broken file"
        ) from error
    if not isinstance(value, type(default)):
        raise RunError(
            f"{path.parent.name}/{path.name}: expected a JSON {type(default).__name__}, "
            f"got {type(value).__name__}"
        )
    return value


def _read_roster(path: Path) -> tuple[str, ...]:
    entries: list[Any] = _read_json(path, [])
    try:
        return tuple(sorted(str(entry["user_id"]) for entry in entries))
    except (KeyError, TypeError) as error:
        raise RunError(f"{path.parent.name}/{path.name}: expected entries with user_id") from error


def _read_preferences(path: Path) -> dict[str, Preference]:
    if not path.is_file():
        return {}
    rows = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline=""))
    try:
        return {row["user_id"]: Preference(float(row["ratio"]), row["group"]) for row in rows}
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"{path.parent.name}/{path.name}: expected the columns user_id, ratio, group"
        ) from error


def _lines(kind: type[T], path: Path) -> list[T]:
    """Read the lines of one file as records of ``kind``."""
    adapter, records = TypeAdapter(kind), []
    for number, line in enumerate(jsonlines.read(path), start=1):
        try:
            records.append(adapter.validate_python(line))
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"]))
            raise RunError(
                f"{path.parent.name}/{path.name} line {number}, field '{field}': {first['msg']}; "
                "the file was changed by hand or comes from another version"
            ) from None
    return records


def _last(records: Iterable[T], key: Callable[[T], K]) -> dict[K, T]:
    """Keep the last record of each key, at the place of the first."""
    found: dict[K, T] = {}
    for record in records:
        found[key(record)] = record
    return found


def _whole(lines: Iterable[Answer]) -> list[Answer]:
    """Keep each user's last complete answers in each arm."""
    groups = jsonlines.whole(
        lines,
        group=lambda each: (each.arm, each.user, each.provenance_key),
        line=lambda each: each.query,
        count=lambda each: each.of,
    )
    complete = {(arm, user): own for (arm, user, _), own in groups}
    return [answer for own in complete.values() for answer in own]


def _over_rounds(lines: Iterable[Adaptation]) -> dict[tuple[str, str], Adaptation]:
    """Add the rounds of each federated training up; of a round the last line counts."""
    found: dict[tuple[str, str], Adaptation] = {}
    rounds = _last(lines, lambda line: (line.arm, line.user, line.round)).values()
    for line in sorted(rounds, key=lambda line: line.round):
        earlier = found.get(_arm_and_user(line))
        found[_arm_and_user(line)] = line if earlier is None else _added(earlier, line)
    return found


def _added(earlier: Adaptation, line: Adaptation) -> Adaptation:
    return replace(
        line,
        steps=earlier.steps + line.steps,
        losses=earlier.losses + line.losses,
        seconds=earlier.seconds + line.seconds,
        tokens=earlier.tokens + line.tokens,
        reductions=earlier.reductions + line.reductions,
    )


def _arm_and_user(line: Adaptation | Augmentation | LossGap) -> tuple[str, str]:
    return line.arm, line.user


def _by_arm(answers: Iterable[Answer], gold_order: Iterable[str]) -> dict[str, tuple[Answer, ...]]:
    """Sort into gold order: the manifest's where it states one, else by user and file order."""
    place = {query: number for number, query in enumerate(gold_order)}
    grouped: dict[str, list[Answer]] = {}
    for answer in answers:
        grouped.setdefault(answer.arm, []).append(answer)
    return {
        arm: tuple(sorted(rows, key=lambda row: (place.get(row.query or "", len(place)), row.user)))
        for arm, rows in grouped.items()
    }


def _arms(config: Config, named: Iterable[str]) -> tuple[ArmName, ...]:
    """The arms of the configuration, then whatever else the files name."""
    known = bool(config.methods) and all(name in METHODS for name in config.methods)
    arms = {arm.name: _arm_name(arm) for arm in (configured_arms(config) if known else ())}
    for name in named:
        arms.setdefault(name, ArmName(name, name.partition("@")[0], _ratio_of(name)))
    return tuple(arms.values())


def _arm_name(arm: Arm) -> ArmName:
    return ArmName(arm.name, arm.method.name, arm.ratio, arm.k, arm.own_thresholds, arm.epsilon)


def _ratio_of(name: str) -> float | None:
    try:
        return float(name.partition("@")[2])
    except ValueError:
        return None
