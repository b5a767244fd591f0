"""The parts of a report, each a pure function from results to a table or to sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from statistics import fmean, median
from typing import Any

from lamp import metrics
from sim.results import ArmResult, Results, failed_users
from sim.runfolder import BASE_MODEL, DOWN, UP, Augmentation, Crossing, Run
from sim.statistics import MOST_USERS, Difference, user_mean_name
from sim.tables import (
    NOT_AVAILABLE,
    Cell,
    Table,
    count,
    difference_cell,
    duration,
    estimate_cell,
    make_table,
    many,
    metric_head,
    metric_title,
    number,
    percent,
    probability,
    signed,
    size,
    tone,
)
from strategy import filters, parsing

LAMP_METRICS: dict[str, tuple[str, ...]] = {
    "classification": ("accuracy", "f1"),
    "rating": ("mae", "rmse"),
    "text": metrics.TEXT_METRICS,
}
# what an effect is measured against, the most telling first
REFERENCES = ("direct_ft", "device", "direct_ft_matched", "copies_ft", "eda_ft", "rkd_ft", "cloud")
SHOWN_REFERENCES = REFERENCES[:2]
MOST_DIFFERENCE_ROWS = 24  # beyond, only the headline metric is listed; results.jsonl has all
ORACLES = frozenset({"cloud_zero_shot", "cloud", "cloud_rag", "unified"})
ORACLE_MARK = " (all data in the cloud)"
FILTER_TITLES = {filters.SEMANTIC: "SCF", filters.DIVERSITY: "TDF", filters.LENGTH: "LSF"}
READING_TITLES = {
    parsing.NO_INPUT: "no input",
    parsing.NO_RESPONSE: "no response",
    parsing.EMPTY_INPUT: "empty input",
    parsing.LABEL_OUTSIDE_SET: "label outside the set",
}
NEAR_ZERO_KEPT = 0.01
LOW_PASS = 0.05  # a filter that lets fewer candidates pass decides alone
MANY_UNPARSED = 0.1
FEW_USERS = 10
WEAK_NLI = 0.7


def scores_table(results: Results) -> Table:
    """One row per arm: LaMP's metrics with intervals, and the headline against the references."""
    return _scores(results, LAMP_METRICS[results.task.kind], SHOWN_REFERENCES, ("Users", "Queries"))


def narrower_tables(results: Results) -> Iterator[Table]:
    """The scores for ever narrower terminals; the last is as narrow as they get."""
    names = LAMP_METRICS[results.task.kind]
    same = len({result.users for result in results.arms}) == 1  # the title then says how many
    counts = () if same else ("Users",)
    yield _scores(results, names, SHOWN_REFERENCES, counts)
    yield _scores(results, names[:1], SHOWN_REFERENCES, counts)
    yield _scores(results, names[:1], SHOWN_REFERENCES[:1], counts)


def _scores(
    results: Results, names: Sequence[str], references: Sequence[str], counts: Sequence[str]
) -> Table:
    headline = metrics.headline(results.task)[0]
    against = [arm for name in references if (arm := results.arm(name))]
    head = ["Method", *counts, *map(metric_head, names)]
    head += [f"{metric_title(headline)} vs {arm.arm.name}" for arm in against]
    rows = []
    for result in results.arms:
        numbers = {"Users": str(result.users), "Queries": count(result.queries)}
        row = [Cell(arm_title(result)), *(Cell(numbers[name]) for name in counts)]
        row += [estimate_cell(result.metrics.get(name)) for name in names]
        row += [_against(result, reference, headline) for reference in against]
        rows.append([*row, Cell(_unparsed(result))])
    return make_table([*head, "Unparsed"], rows)


def arm_title(result: ArmResult) -> str:
    """Name of an arm; oracles are marked."""
    return result.arm.name + (ORACLE_MARK if result.arm.method in ORACLES else "")


def _against(result: ArmResult, reference: ArmResult, metric: str) -> Cell:
    if result.arm == reference.arm:
        return Cell("-")
    return difference_cell(metric, result.differences.get(reference.arm.name, {}).get(metric))


def _unparsed(result: ArmResult) -> str:
    rate = result.metrics.get("parse_failure_rate")
    return NOT_AVAILABLE if rate is None else percent(rate.value, 1)


def outside_lamp_table(results: Results) -> Table | None:
    """Figures that LaMP does not report: means over users, and its bootstrap median with a seed."""
    names = ("lamp_compat_rouge1", "lamp_compat_rougeL", user_mean_name(results.task))
    shown = [name for name in names if any(name in result.metrics for result in results.arms)]
    rows: list[list[Cell | str]] = [
        [arm_title(result), *(estimate_cell(result.metrics.get(name)) for name in shown)]
        for result in results.arms
    ]
    return make_table(["Method", *map(metric_head, shown)], rows) if shown else None


Pair = tuple[ArmResult, ArmResult]


def compared_pairs(results: Results) -> list[Pair]:
    """Each arm against each reference, once; arms of different ratios are not compared."""
    pairs: list[Pair] = []
    seen: set[frozenset[str]] = set()
    for method in REFERENCES:
        for reference in (each for each in results.arms if each.arm.method == method):
            for result in results.arms:
                names = frozenset({result.arm.name, reference.arm.name})
                ratios = {result.arm.ratio, reference.arm.ratio} - {None}
                if len(names) == 2 and names not in seen and len(ratios) < 2:
                    seen.add(names)
                    pairs.append((result, reference))
    return pairs


def differences_table(results: Results) -> Table | None:
    """Paired differences with interval, p value and what the users at hand could detect."""
    pairs, names = compared_pairs(results), LAMP_METRICS[results.task.kind]
    if len(pairs) * len(names) > MOST_DIFFERENCE_ROWS:
        names = (metrics.headline(results.task)[0],)
    several = len(results.runs) > 1
    rows = [
        [
            result.arm.name,
            reference.arm.name,
            metric_head(name),
            *_difference_cells(name, found),
            *([_same_sign(found)] if several else []),
        ]
        for result, reference in pairs
        for name in names
        if (found := result.differences.get(reference.arm.name, {}).get(name))
    ]
    head = ["Method", "Against", "Metric", "Difference", "p", "Users", "Detectable", "Users needed"]
    head += ["Seeds with this sign"] if several else []
    return make_table(head, rows, left=3) if rows else None


def _difference_cells(name: str, found: Difference) -> list[Cell | str]:
    return [
        difference_cell(name, found),
        probability(found.p),
        str(found.users),
        number(found.detectable),
        _needed(found),
    ]


def _needed(found: Difference) -> str:
    if found.users_needed is None:
        return NOT_AVAILABLE
    return many(found.users_needed, MOST_USERS)


def plural(number_of: int, noun: str) -> str:
    """Write "1 user", "2 users"."""
    return f"{count(number_of)} {noun}" if number_of == 1 else f"{count(number_of)} {noun}s"


def _same_sign(found: Difference) -> str:
    agreeing = sum(each * found.value > 0 for each in found.per_seed)
    return f"{agreeing} of {len(found.per_seed)}"


def power_notes(results: Results) -> list[str]:
    """Say for each method against the first reference what these users can and cannot tell."""
    name = metrics.headline(results.task)[0]
    reference = next((arm for each in REFERENCES if (arm := results.arm(each))), None)
    if reference is None:
        return []
    return [
        _power_note(result.arm.name, reference.arm.name, name, found)
        for result in results.arms
        if (found := result.differences.get(reference.arm.name, {}).get(name))
    ]


def _power_note(arm: str, reference: str, name: str, found: Difference) -> str:
    head = f"{arm} against {reference}, {plural(found.users, 'user')}: "
    if found.low is None:
        return head + "one user alone gives no interval."
    if found.detectable is None:
        return head + "every user has the same difference, so there is no variance to judge by."
    observed = f"{metric_title(name)} {signed(found.value)}"
    limit = f"a true difference of {number(found.detectable)} is found with 80% power"
    judged = tone(name, found)
    if judged != "plain":
        return f"{head}{observed}, {judged}; {limit}."
    needed = found.users_needed
    more = f"; {_needed(found)} users would resolve this difference" if needed else ""
    return f"{head}{observed}, not resolved; {limit}{more}."


def kept_table(run: Run) -> Table | None:
    """Per arm: what was shared, generated, readable, let through by each filter, and kept."""
    rows = []
    others = _other_reasons(run)
    for arm in run.arms:
        lines = _augmentations(run, arm.name)
        if not lines:
            continue
        total = _total(lines)
        rows.append(
            [
                arm.name,
                str(sum(line.shared > 0 for line in lines)),
                count(total.shared),
                count(total.generated),
                *(percent(passed, reached) for _, reached, passed in _gates(total, others)),
                count(total.kept),
                percent(total.kept, total.generated),
            ]
        )
    gates = ["Readable", *(f"Pass {_reason_title(name)}" for name in (*FILTER_TITLES, *others))]
    head = ["Method", "Users who share", "Shared", "Generated", *gates, "Kept", "Kept share"]
    return make_table(head, rows) if rows else None


def rejections_table(run: Run) -> Table | None:
    """Per arm and reason: rejected candidates and their share of all that were generated."""
    arms = [arm for arm in run.arms if _augmentations(run, arm.name)]
    totals = {arm.name: _total(_augmentations(run, arm.name)) for arm in arms}
    reasons = (*READING_TITLES, *FILTER_TITLES, *_other_reasons(run))
    rows: list[list[Cell | str]] = [
        [
            _reason_title(reason),
            *(_rejected_cell(total, reason) for total in totals.values()),
        ]
        for reason in reasons
        if any(total.rejected.get(reason) for total in totals.values())
    ]
    return make_table(["Rejected because of", *totals], rows) if rows else None


def _rejected_cell(total: Augmentation, reason: str) -> Cell:
    rejected = total.rejected.get(reason, 0)
    return Cell(count(rejected), f"({percent(rejected, total.generated)})")


def _augmentations(run: Run, arm: str) -> list[Augmentation]:
    return [line for (name, _), line in run.augmentations.items() if name == arm]


def _total(lines: Sequence[Augmentation]) -> Augmentation:
    rejected: Counter[str] = Counter()
    for line in lines:
        rejected.update(line.rejected)
    return Augmentation(
        arm=lines[0].arm,
        user="",
        shared=sum(line.shared for line in lines),
        generated=sum(line.generated for line in lines),
        kept=sum(line.kept for line in lines),
        rejected=dict(rejected),
    )


def _other_reasons(run: Run) -> list[str]:
    known = {*READING_TITLES, *FILTER_TITLES}
    named = {reason for line in run.augmentations.values() for reason in line.rejected}
    return sorted(named - known)


def _reason_title(reason: str) -> str:
    return FILTER_TITLES.get(reason) or READING_TITLES.get(reason) or reason


def _gates(total: Augmentation, others: Iterable[str]) -> Iterator[tuple[str, int, int]]:
    """Yield (gate, candidates that reached it, candidates that passed), in the filters' order."""
    reached = total.generated
    passed = reached - sum(total.rejected.get(reason, 0) for reason in READING_TITLES)
    yield "readable", reached, passed
    for reason in (*FILTER_TITLES, *others):
        reached, passed = passed, passed - total.rejected.get(reason, 0)
        yield reason, reached, passed


def training_table(run: Run) -> Table | None:
    """Per arm: what the adapters' training took, mean over users."""
    rows = []
    for arm in run.arms:
        lines = [line for (name, _), line in run.adaptations.items() if name == arm.name]
        if not lines:
            continue
        ends = [(line.losses[0], line.losses[-1]) for line in lines if line.losses]
        seconds = sum(line.seconds for line in lines)
        rows.append(
            [
                arm.name,
                str(len(lines)),
                _mean(line.records for line in lines),
                _mean(line.synthetic for line in lines),
                _mean(line.steps for line in lines),
                f"{fmean(a for a, _ in ends):.2f} to {fmean(b for _, b in ends):.2f}"
                if ends
                else NOT_AVAILABLE,
                duration(seconds / len(lines)),
                count(sum(line.tokens for line in lines) / seconds) if seconds else NOT_AVAILABLE,
                size(max(line.peak_memory_bytes for line in lines)),
                size(max(line.adapter_bytes for line in lines)),
            ]
        )
    head = (
        "Method",
        "Users",
        "Own records",
        "Synthetic",
        "Steps",
        "Loss, first to last",
        "Time per user",
    )
    return make_table((*head, "Tokens/s", "Device memory", "Adapter"), rows) if rows else None


def _mean(values: Iterable[float]) -> str:
    return f"{fmean(values):.1f}"


def time_table(run: Run) -> Table | None:
    """Wall time per arm and phase; shared phases stand first."""
    seconds: dict[str, dict[str, float]] = {}
    for line in run.phases:
        by_phase = seconds.setdefault(line.arm, {})
        by_phase[line.phase] = by_phase.get(line.phase, 0.0) + line.seconds
    rows = [
        [arm or "all arms", phase, duration(spent)]
        for arm, by_phase in seconds.items()
        for phase, spent in by_phase.items()
        if spent
    ]
    total = sum(line.seconds for line in run.phases)
    return (
        make_table(("Method", "Phase", "Time"), [*rows, ["sum", "", duration(total)]], 2)
        if rows
        else None
    )


def wire_table(run: Run) -> Table | None:
    """Bytes and records that crossed the wire, per arm and direction."""
    groups: dict[str, list[Crossing]] = {}
    for line in run.crossings:
        title = "M_base, once" if line.kind == BASE_MODEL else line.arm or "all arms"
        groups.setdefault(title, []).append(line)
    if len(groups) > 1:
        groups["sum"] = list(run.crossings)
    head = ("Method", "Messages", "Device to server", "Records up", "Server to device")
    rows = [[title, *_wire_cells(lines)] for title, lines in groups.items()]
    return make_table((*head, "Records down", "Sent again"), rows) if rows else None


def _wire_cells(lines: Sequence[Crossing]) -> list[str]:
    first = [line for line in lines if not line.redelivery]
    up, down = ([line for line in first if line.direction == way] for way in (UP, DOWN))
    return [
        count(len(lines)),
        size(sum(line.bytes for line in up)),
        count(sum(line.records for line in up)),
        size(sum(line.bytes for line in down)),
        count(sum(line.records for line in down)),
        size(sum(line.bytes for line in lines if line.redelivery)),
    ]


def failures_table(run: Run) -> Table | None:
    """Every message that got no good reply, by user."""
    answered = {arm: {answer.user for answer in rows} for arm, rows in run.answers.items()}
    rows = [
        [
            failure.user,
            failure.arm or "all arms",
            failure.phase,
            failure.kind,
            failure.reason,
            "yes" if failure.user in answered.get(failure.arm, set()) else "no",
        ]
        for failure in sorted(run.failures, key=lambda each: (each.user, each.arm, each.phase))
    ]
    head = ("User", "Method", "Message", "Kind", "Reason", "Scored all the same")
    return make_table(head, rows, left=6) if rows else None


def data_table(run: Run) -> Table:
    """What the users bring: queries, histories, allowed shares, and the manifest's own figures."""
    per_user = Counter(answer.user for answer in _widest(run) for _ in range(answer.queries))
    histories = {user: line.records for (_, user), line in run.adaptations.items()}
    ratios = [each.ratio for each in run.preferences.values()]
    rows = [["Target users", str(len(run.roster))], ["Scored queries", count(per_user.total())]]
    part = run.manifest.get("data", {})
    rows += [["Split", str(part["split"])]] if "split" in part else []
    rows += _spread_row("Queries per user", per_user.values(), count)
    rows += _spread_row("Records per user (D_u)", histories.values(), count)
    rows += _spread_row("Largest share allowed", ratios, lambda value: f"{value:.2f}")
    rows += _scalars(part)
    return make_table(("Figure", "Value"), rows)


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


def warnings(results: Results) -> list[str]:
    """What a reader must know before believing the table."""
    found = list(_few_users_warnings(results))
    found += [text for result in results.arms for text in _arm_warnings(results, result)]
    for run in results.runs:
        seed = f" (seed {run.config.seed})" if len(results.runs) > 1 else ""
        found += [text + seed for text in (*_filter_warnings(run), *_nli_warnings(run))]
    return list(dict.fromkeys(found))


def _few_users_warnings(results: Results) -> Iterator[str]:
    by_users: dict[int, list[str]] = {}
    for result in results.arms:
        if 0 < result.users < FEW_USERS:
            by_users.setdefault(result.users, []).append(result.arm.name)
    for users, names in by_users.items():
        effect = "so there is no interval" if users == 1 else "intervals over so few are rough"
        yield f"{', '.join(names)}: {plural(users, 'user')}; {effect}."


def _arm_warnings(results: Results, result: ArmResult) -> Iterator[str]:
    name, users = result.arm.name, {user for run in results.runs for user in run.roster}
    if not result.users:
        yield f"{name}: no user has a scored query."
        return
    if result.users < len(users):
        failed = {user for run in results.runs for user in failed_users(run, result.arm)}
        why = f"; {len(failed)} with a failed message" if failed else ""
        yield f"{name}: {result.users} of {len(users)} users are scored{why}."
    rate = result.metrics.get("parse_failure_rate")
    if rate is not None and rate.value > MANY_UNPARSED:
        yield f"{name}: {percent(rate.value, 1)} of the answers are unreadable and count as wrong."
    main = result.metrics.get(metrics.headline(results.task)[0])
    if main is not None and main.low is not None and main.low == main.high:
        yield (
            f"{name}: all users have the same score; its interval has no width because nothing "
            "varied, not because nothing is uncertain."
        )


def _filter_warnings(run: Run) -> Iterator[str]:
    for arm in run.arms:
        lines = _augmentations(run, arm.name)
        total = _total(lines) if lines else None
        if total is None or not total.generated:
            continue
        if total.kept < NEAR_ZERO_KEPT * total.generated:
            yield (
                f"{arm.name}: the filters kept {count(total.kept)} of {count(total.generated)} "
                f"candidates ({percent(total.kept, total.generated)}); the method hardly differs "
                "from direct_ft."
            )
        for gate, reached, passed in _gates(total, _other_reasons(run)):
            if reached and passed < LOW_PASS * reached:
                title = _reason_title(gate)
                yield f"{arm.name}: {title} let {percent(passed, reached)} of the candidates pass."


def _nli_warnings(run: Run) -> Iterator[str]:
    accuracy = nli_accuracy(run)
    if accuracy is not None and accuracy < WEAK_NLI:
        yield f"The NLI model is right on {percent(accuracy, 1)} of held-out pairs only."


def nli_accuracy(run: Run) -> float | None:
    """Accuracy of the NLI model on held-out pairs, where the manifest states it."""
    value = run.manifest.get("models", {}).get("nli", {}).get("held_out_accuracy")
    return float(value) if isinstance(value, int | float) else None
