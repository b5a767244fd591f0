"""Tables of what a run did: training, time, bytes, failures, data, models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isnan
from statistics import fmean, median
from typing import Any

import pandas as pd

from sim.report.frames import (
    failures_frame,
    ledger_frame,
    phases_frame,
    training_frame,
    users_frame,
)
from sim.report.paper_values import TABLE4
from sim.report.run_records import BASE_MODEL, SENT_MODEL, ArmName, Augmentation, Run
from sim.report.tables import (
    NOT_AVAILABLE,
    Table,
    count,
    duration,
    make_table,
    number,
    percent,
    signed,
    size,
)
from strategy.judges import EMBEDDING
from strategy.ledger import DEVICE_MODEL, WITHDRAWAL
from strategy.methods import METHODS, studied

ONE_TIME = (BASE_MODEL, DEVICE_MODEL)


def training_table(run: Run) -> Table | None:
    """Per arm: what the adapters' training took, mean over users."""
    rows, training = [], training_frame(run)
    gated = training.gate.notna().any()
    for arm, own in training.groupby("arm", sort=False):
        first, last, seconds = own.first_loss.mean(), own.last_loss.mean(), own.seconds.sum()
        rows.append(
            [
                str(arm),
                str(len(own)),
                *(f"{own[name].mean():.1f}" for name in ("records", "synthetic", "steps")),
                NOT_AVAILABLE if isnan(first) else f"{first:.2f} to {last:.2f}",
                duration(seconds / len(own)),
                count(own.tokens.sum() / seconds) if seconds else NOT_AVAILABLE,
                size(own.peak_memory_bytes.max()),
                size(own.adapter_bytes.max()),
                *([_used(own.gate)] if gated else []),
            ]
        )
    head = ("Method", "Users", "Own records", "Synthetic", "Steps", "Loss, first to last")
    tail = ("Time per user", "Tokens/s", "Device memory", "Adapter", *(["Used"] if gated else []))
    return make_table((*head, *tail), rows) if rows else None


def _used(gate: pd.Series) -> str:
    """Users whose device uses the adapter, of those who were asked; all of them without a gate."""
    return "all" if gate.isna().all() else f"{int(gate.sum())} of {gate.count()}"


def shortened_table(run: Run) -> Table | None:
    """Per arm: training examples and queries that were too long and lost text; None for none."""
    users = users_frame(run).fillna({"shortened_examples": 0})
    cut = users[users.shortened_examples + users.shortened_queries > 0]
    rows = [
        [
            str(arm),
            count(own.shortened_examples.sum()),
            count(own.shortened_queries.sum()),
            str(len(own)),
        ]
        for arm, own in cut.groupby("arm", sort=False)
    ]
    return make_table(("Method", "Training examples", "Queries", "Users"), rows) if rows else None


def reductions_table(run: Run) -> Table | None:
    """Per arm: users whose training ran out of memory and went on smaller; None for none."""
    reduced = [each for each in run.adaptations.values() if each.reductions]
    rows = []
    for arm in dict.fromkeys(each.arm for each in reduced):
        own = [each.reductions for each in reduced if each.arm == arm]
        rows.append([arm, str(len(own)), count(sum(own)), str(max(own))])
    return (
        make_table(("Method", "Users", "Times in all", "Most of one user"), rows) if rows else None
    )


def statistics_table(runs: Sequence[Run]) -> Table | None:
    """The paper's Table 4: queries, histories, lengths, and what the filters kept of cdcda's."""
    rows: list[list[str]] = []
    for run in runs:
        known = run.manifest.get("data", {}).get("statistics")
        if not known:
            continue
        arm, lines = _synthetic(run)
        kept = sum(line.kept for line in lines)
        rows.append(
            [
                run.task.title.partition(" ")[0],
                "ours",
                count(known["queries"]),
                f"{known['records_per_user']:.2f}",
                f"{known['input_words']:.2f}",
                f"{known['response_words']:.2f}",
                count(kept) if arm else NOT_AVAILABLE,
                _per_text(sum(line.input_words or 0 for line in lines), kept),
                _per_text(sum(line.response_words or 0 for line in lines), kept),
            ]
        )
        if theirs := TABLE4.get(run.task.name):
            rows.append(["", "paper", *_table4_cells(theirs)])
    head = ("Task", "", "Queries", "Records/user", "L_in", "L_out", "Kept", "Kept L_in")
    return make_table((*head, "Kept L_out"), rows, left=2) if rows else None


def _table4_cells(values: Sequence[float]) -> list[str]:
    queries, records, *own, kept, kept_in, kept_out = values
    lengths = [f"{value:.2f}" for value in (records, *own)]
    return [count(queries), *lengths, count(kept), f"{kept_in:.2f}", f"{kept_out:.2f}"]


def _synthetic(run: Run) -> tuple[str, list[Augmentation]]:
    """The cdcda arm at the largest share, and what became of its candidates."""
    arms = [arm for arm in run.arms if arm.method == studied() and not arm.thresholds]
    if not arms:
        return "", []
    name = max(arms, key=_largest_share).name
    return name, [line for (each, _), line in run.augmentations.items() if each == name]


def _largest_share(arm: ArmName) -> tuple[float, int]:
    return 1.0 if arm.ratio is None else arm.ratio, arm.k or 0


def _per_text(words: int, texts: int) -> str:
    return f"{words / texts:.2f}" if texts else NOT_AVAILABLE


def efficiency_table(run: Run) -> Table | None:
    """Per arm: bytes of model and adapter, memory to adapt and to answer, decoding speed."""
    base = {line.kind: line.bytes for line in run.crossings if line.kind in ONE_TIME}
    cloud = run.manifest.get("models", {}).get("cloud", {})
    rows = []
    for arm in run.arms:
        method = METHODS.get(arm.method)
        if method is None or not run.answers.get(arm.name):
            continue
        own = adapter_bytes(run, adapter_arm(arm))
        if method.answers == "cloud":
            weights = cloud.get("bytes") if isinstance(cloud, dict) else None
        else:
            weights = base.get(BASE_MODEL if method.tuned else DEVICE_MODEL)
        peak = peak_memory(run, arm.name)
        rows.append(
            [
                arm.name,
                method.answers,
                size(weights) if weights else NOT_AVAILABLE,
                size(own) if own else "-",
                size(peak) if peak else "-",
                size(weights + own) if weights else NOT_AVAILABLE,
                decoding_speed(run, arm.name),
            ]
        )
    head = ("Method", "Answers", "Model", "Adapter", "Memory to adapt", "Memory to answer")
    return make_table((*head, "Tokens/s"), rows, left=2) if rows else None


def adapter_arm(arm: ArmName) -> str:
    """The arm whose adapter answers: another one's for the methods with RAG."""
    method = METHODS[arm.method]
    if not method.adapter_of:
        return arm.name
    return method.adapter_of + arm.name.removeprefix(arm.method)


def decoding_speed(run: Run, arm: str) -> str:
    """Tokens that one device writes per second, prompts read and adapter loaded included."""
    users = {answer.user: answer for answer in run.answers.get(arm, ())}
    seconds = sum(answer.seconds for answer in users.values())
    tokens = sum(answer.tokens for answer in users.values())
    return count(tokens / seconds) if seconds else NOT_AVAILABLE


def loss_gap_table(run: Run) -> Table | None:
    """Per arm: loss on the users' own records and on their queries' gold answers."""
    rows = []
    for arm in run.arms:
        lines = [line for line in run.loss_gaps if line.arm == arm.name]
        if lines:
            own, held_out = fmean(x.own for x in lines), fmean(x.held_out for x in lines)
            cells = [number(own), number(held_out), signed(held_out - own)]
            rows.append([arm.name, str(len(lines)), *cells])
    head = ("Method", "Users", "Loss on D_u", "Loss on the queries", "Gap")
    return make_table(head, rows) if rows else None


def adapter_bytes(run: Run, arm: str) -> int:
    """Largest adapter of an arm, 0 where none was trained."""
    lines = [line for (name, _), line in run.adaptations.items() if name == arm]
    return max((line.adapter_bytes for line in lines), default=0)


def peak_memory(run: Run, arm: str) -> int:
    """Largest memory that training an arm's adapters took on a device, 0 where none was trained."""
    lines = [line for (name, _), line in run.adaptations.items() if name == arm]
    return max((line.peak_memory_bytes for line in lines), default=0)


def time_table(run: Run) -> Table | None:
    """Wall time per arm and phase; shared phases stand first."""
    phases = phases_frame(run)
    spent = phases.groupby(["arm", "phase"], sort=False).seconds.sum()
    order = {arm: place for place, arm in enumerate(dict.fromkeys(phases.arm))}
    spent = spent[spent > 0].sort_index(
        level="arm", key=lambda arms: arms.map(order), sort_remaining=False, kind="stable"
    )
    rows = [
        [arm or "all arms", phase, duration(seconds)] for (arm, phase), seconds in spent.items()
    ]
    total = ["sum", "", duration(phases.seconds.sum())]
    return make_table(("Method", "Phase", "Time"), [*rows, total], 2) if rows else None


def wire_table(run: Run) -> Table | None:
    """Bytes and records that crossed the wire, per arm and direction.

    What oracles read crosses no wire, and a tombstone is no message.
    """
    ledger = ledger_frame(run)
    crossed = ledger[ledger.direction.isin(["up", "down"]) & (ledger.kind != WITHDRAWAL)]
    once = crossed.kind.isin([BASE_MODEL, SENT_MODEL])
    titles = crossed.arm.replace("", "all arms").mask(once, "M_base, once")
    groups = [(str(title), own) for title, own in crossed.groupby(titles, sort=False)]
    groups += [("sum", crossed)] if len(groups) > 1 else []
    head = ("Method", "Messages", "Device to server", "Records up", "Server to device")
    rows = [[title, *_wire_cells(own)] for title, own in groups]
    return make_table((*head, "Records down", "Sent again"), rows) if rows else None


def _wire_cells(own: pd.DataFrame) -> list[str]:
    again = own.redelivery.astype(bool)
    sums = own[~again].groupby("direction")[["bytes", "records"]].sum()
    sums = sums.reindex(["up", "down"], fill_value=0)
    cells = [text for _, way in sums.iterrows() for text in (size(way.bytes), count(way.records))]
    return [count(len(own)), *cells, size(own[again].bytes.sum())]


def failures_table(run: Run) -> Table | None:
    """Every message that got no good reply, by user."""
    answered = {arm: {answer.user for answer in rows} for arm, rows in run.answers.items()}
    rows = [
        [
            each.user,
            each.arm or "all arms",
            each.phase,
            each.kind,
            each.reason,
            "yes" if each.user in answered.get(each.arm, set()) else "no",
        ]
        for each in failures_frame(run).sort_values(["user", "arm", "phase"]).itertuples()
    ]
    head = ("User", "Method", "Message", "Kind", "Reason", "Scored all the same")
    return make_table(head, rows, left=6) if rows else None


def data_table(run: Run) -> Table:
    """What the users bring: queries, histories, allowed shares, and the manifest's own figures."""
    per_user = Counter(answer.user for answer in _widest(run) for _ in range(answer.queries))
    histories: dict[str, int] = {}
    for (_, user), line in run.adaptations.items():  # a streaming device trains on a part
        histories[user] = max(line.records, histories.get(user, 0))
    ratios = [each.ratio for each in run.preferences.values()]
    rows = [["Target users", str(len(run.registry))], ["Scored queries", count(per_user.total())]]
    part = run.manifest.get("data", {})
    rows += [["Split", str(part["split"])]] if "split" in part else []
    rows += _spread_row("Queries per user", per_user.values(), count)
    rows += _spread_row("Records per user (D_u)", histories.values(), count)
    rows += _spread_row("Largest share allowed", ratios, lambda value: f"{value:.2f}")
    rows.append(["Numbers that leave a device", _numbers_that_leave(run)])
    if settings := run.manifest.get("settings"):
        rows.append(["Settings of training", str(settings)])
    rows += _scalars(part)
    return make_table(("Figure", "Value"), rows)


def _numbers_that_leave(run: Run) -> str:
    """How exact they are; a simulation's users permit all, a real device's own policy decides."""
    if run.config.engine.name == "deployment":
        return "what each device's policy allows"
    return "exact (simulated users permit them; a real device starts with coarse ones)"


def _widest(run: Run) -> Sequence[Any]:
    """The answers of the arm that has most of them."""
    return max(run.answers.values(), key=len, default=())


def _spread_row(
    title: str, values: Iterable[float], write: Callable[[float], str]
) -> list[list[str]]:
    known = sorted(values)
    if not known:
        return []
    ends = f"{write(known[0])} to {write(known[-1])}, median {write(median(known))}"
    return [[title, write(known[0]) if known[0] == known[-1] else ends]]


def models_table(run: Run) -> Table | None:
    """Held-out figures of the models, where the manifest has them."""
    rows = [
        [name, *row]
        for name, figures in run.manifest.get("models", {}).items()
        if isinstance(figures, dict)
        for row in _scalars(figures)
    ]
    return make_table(("Model", "Figure", "Value"), rows, left=2) if rows else None


def _scalars(figures: Mapping[str, Any]) -> list[list[str]]:
    """Rows for the numbers of a manifest part; texts may be folders and are left out."""
    return [
        [name.replace("_", " "), count(value) if isinstance(value, int) else number(value)]
        for name, value in figures.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]


def data_notes(run: Run) -> list[str]:
    """What loading the data had to say."""
    return [str(note) for note in run.manifest.get("data", {}).get("notes", ())]


def cut_pairs(run: Run) -> int:
    """Candidates that the judge saw a part of only; the last count of a resumed run."""
    return next((line.cut_pairs for line in reversed(run.phases) if line.cut_pairs), 0)


def nli_accuracy(run: Run) -> float | None:
    """Accuracy of the NLI model on held-out pairs, where the manifest states it."""
    value = run.manifest.get("models", {}).get("nli", {}).get("accuracy")
    return float(value) if isinstance(value, int | float) else None


def judge_sentence(run: Run) -> str:
    """What judged semantic consistency, and how well as far as that is known."""
    if run.config.filters.judge == EMBEDDING:
        return (
            "Semantic consistency is the cosine of sentence vectors, "
            f"{run.config.filters.eps_embedding:g} or more, not NLI both ways as in the paper."
        )
    accuracy = nli_accuracy(run)
    if accuracy is None:
        return "The NLI model's accuracy on held-out pairs is not known."
    return f"The NLI model is right on {percent(accuracy, 1)} of held-out pairs."
