"""Tables of what was scored: methods with intervals, paired differences, power."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lamp import metrics
from sim.report import exercised
from sim.report.pooling import ArmResult, Results
from sim.report.tables import (
    NOT_AVAILABLE,
    Cell,
    Table,
    count,
    difference_cell,
    estimate_cell,
    make_table,
    many,
    metric_head,
    metric_title,
    number,
    percent,
    plural,
    probability,
    signed,
    tone,
)
from sim.statistics import MOST_USERS, Difference, Estimate, user_mean_name
from strategy.methods import METHODS, compared, is_oracle, is_tuned_cloud

LAMP_METRICS: dict[str, tuple[str, ...]] = {
    "classification": ("accuracy", "f1"),
    "rating": ("mae", "rmse"),
    "text": metrics.TEXT_METRICS,
}
SHOWN_REFERENCES = 2  # as columns of the tables of scores
MOST_DIFFERENCE_ROWS = 24  # beyond, only the headline metric is listed; results.jsonl has all
VERDICTS = {True: "shown", False: "no, worse", None: "not resolved"}
EXPLORATORY = "exploratory"
ORACLE_MARK = " (all data in the cloud)"


def scores_table(results: Results) -> Table:
    """One row per arm: LaMP's metrics with intervals, and the headline against the references."""
    names = LAMP_METRICS[results.task.kind]
    return _scores(results, names, compared()[:SHOWN_REFERENCES], ("Users", "Queries"))


def narrower_tables(results: Results) -> Iterator[Table]:
    """The scores for ever narrower terminals; the last is as narrow as they get."""
    names = LAMP_METRICS[results.task.kind]
    same = len({result.users for result in results.arms}) == 1  # the title then says how many
    counts = () if same else ("Users",)
    references = compared()[:SHOWN_REFERENCES]
    yield _scores(results, names, references, counts)
    yield _scores(results, names[:1], references, counts)
    yield _scores(results, names[:1], references[:1], counts)


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
    """Name of an arm; oracles are marked, and arms that did not exercise their method."""
    mark = "" if result.exercised else f" ({exercised.LABEL})"
    return result.arm.name + (ORACLE_MARK if is_oracle(result.arm.method) else mark)


def _against(result: ArmResult, reference: ArmResult, metric: str) -> Cell:
    if result.arm == reference.arm:
        return Cell("-")
    return difference_cell(metric, result.differences.get(reference.arm.name, {}).get(metric))


def _unparsed(result: ArmResult) -> str:
    rate = result.metrics.get("parse_failure_rate")
    return NOT_AVAILABLE if rate is None else percent(rate.value, 1)


def outside_lamp_table(results: Results) -> Table | None:
    """Figures that LaMP does not report: means over users, and its bootstrap median with a seed."""
    own = user_mean_name(results.task)
    names = ("lamp_compat_rouge1", "lamp_compat_rougeL", own, "unicode_rouge1")
    shown = [name for name in names if any(name in result.metrics for result in results.arms)]
    rows: list[list[Cell | str]] = [
        [arm_title(result), *(estimate_cell(result.metrics.get(name)) for name in shown)]
        for result in results.arms
    ]
    return make_table(["Method", *map(metric_head, shown)], rows) if shown else None


def parsing_table(results: Results) -> Table | None:
    """Answers that could not be read, per arm, with the interval of their rate over users."""
    rows: list[list[Cell | str]] = []
    for result in results.arms:
        rate = result.metrics.get("parse_failure_rate")
        if rate is not None:
            unread = round(rate.value * result.queries)
            rows.append([arm_title(result), count(result.queries), count(unread), _rate_cell(rate)])
    return make_table(("Method", "Answers", "Unparsed", "Rate"), rows) if rows else None


def _rate_cell(rate: Estimate) -> Cell:
    ends = (
        ""
        if rate.low is None or rate.high is None
        else (f"[{percent(max(0.0, rate.low), 1)}, {percent(min(1.0, rate.high), 1)}]")
    )
    return Cell(percent(rate.value, 1), ends)


def inferiority_table(results: Results) -> Table | None:
    """Whether on-device arms are no worse than the cloud model by more than the stated margin.

    Shown where the interval of the difference lies wholly on the better side of minus the margin.
    """
    name, higher = metrics.headline(results.task)
    clouds = [arm.arm.name for arm in results.arms if is_tuned_cloud(arm.arm.method)]
    margin = results.runs[0].config.evaluation.margin
    rows: list[list[Cell | str]] = []
    for result in results.arms if clouds else ():
        found, method = result.differences.get(clouds[0], {}).get(name), METHODS[result.arm.method]
        if found and method.adapts and not method.oracle:
            verdict = "n/a" if found.low is None else VERDICTS[not_worse(found, higher, margin)]
            rows.append([arm_title(result), difference_cell(name, found), verdict])
    head = ("Method", f"{metric_head(name)} minus cloud", f"Not worse by more than {margin:g}")
    return make_table(head, rows) if rows else None


def not_worse(found: Difference, higher_is_better: bool, margin: float) -> bool | None:
    """True: no worse by more than ``margin``; False: worse by more; None: the users cannot tell."""
    if found.low is None or found.high is None:
        return None
    low, high = (found.low, found.high) if higher_is_better else (-found.high, -found.low)
    return True if low > -margin else False if high < -margin else None


Pair = tuple[ArmResult, ArmResult]


def compared_pairs(results: Results) -> list[Pair]:
    """Each arm against each reference, once; not where ratio, k, thresholds or epsilon differ."""
    pairs: list[Pair] = []
    seen: set[frozenset[str]] = set()
    for method in compared():
        for reference in (each for each in results.arms if each.arm.method == method):
            for result in results.arms:
                names = frozenset({result.arm.name, reference.arm.name})
                if len(names) == 2 and names not in seen and _comparable(result, reference):
                    seen.add(names)
                    pairs.append((result, reference))
    return pairs


def _comparable(first: ArmResult, second: ArmResult) -> bool:
    """Whether no two settings of one kind stand against each other."""
    one, other = first.arm, second.arm
    settings: tuple[set[object], ...] = (
        {one.ratio, other.ratio},
        {one.k, other.k},
        {one.thresholds, other.thresholds},
        {one.epsilon, other.epsilon},
    )
    return all(len(values - {None, ()}) < 2 for values in settings)


def differences_table(results: Results) -> Table | None:
    """Paired differences with interval, p value and what the users at hand could detect."""
    pairs, names = compared_pairs(results), LAMP_METRICS[results.task.kind]
    if len(pairs) * len(names) > MOST_DIFFERENCE_ROWS:
        names = (metrics.headline(results.task)[0],)
    several = len(results.runs) > 1
    rows = [
        [
            arm_title(result),
            reference.arm.name,
            metric_head(name),
            *_difference_cells(name, found),
            *([_same_sign(found)] if several else []),
        ]
        for result, reference in pairs
        for name in names
        if (found := result.differences.get(reference.arm.name, {}).get(name))
    ]
    head = ["Method", "Against", "Metric", "Difference", "p", "p, Holm", "Users", "Detectable"]
    head += ["Users needed", *(["Seeds with this sign"] if several else [])]
    return make_table(head, rows, left=3) if rows else None


def _difference_cells(name: str, found: Difference) -> list[Cell | str]:
    return [
        difference_cell(name, found),
        probability(found.p),
        EXPLORATORY if found.adjusted_p is None else probability(found.adjusted_p),
        str(found.users),
        number(found.minimum_detectable_effect),
        _needed(found),
    ]


def _needed(found: Difference) -> str:
    if found.required_sample_size is None:
        return NOT_AVAILABLE
    return many(found.required_sample_size, MOST_USERS)


def _same_sign(found: Difference) -> str:
    agreeing = sum(each * found.value > 0 for each in found.per_seed)
    return f"{agreeing} of {len(found.per_seed)}"


def power_notes(results: Results) -> list[str]:
    """Say for each method against the first reference what these users can and cannot tell."""
    name = metrics.headline(results.task)[0]
    reference = next((arm for each in compared() if (arm := results.arm(each))), None)
    if reference is None:
        return []
    return [
        _power_note(result, reference.arm.name, name, found)
        for result in results.arms
        if (found := result.differences.get(reference.arm.name, {}).get(name))
    ]


def _power_note(result: ArmResult, reference: str, name: str, found: Difference) -> str:
    head = f"{result.arm.name} against {reference}, {plural(found.users, 'user')}: "
    if not result.exercised:
        return f"{head}{exercised.LABEL}; a difference, or none, says nothing about it."
    if found.low is None:
        return head + "one user alone gives no interval."
    if found.minimum_detectable_effect is None:
        return head + "every user has the same difference, so there is no variance to judge by."
    observed = f"{metric_title(name)} {signed(found.value)}"
    limit = (
        f"a true difference of {number(found.minimum_detectable_effect)} is found with 80% power"
    )
    judged = tone(name, found)
    if judged != "plain":
        return f"{head}{observed}, {judged}; {limit}."
    if found.low * (found.high or 0.0) > 0:
        why = (
            "exploratory: its interval leaves out zero, as one of many does by chance"
            if found.adjusted_p is None
            else f"interval and test disagree: p {probability(found.adjusted_p)} after Holm"
        )
        return f"{head}{observed}, {why}; {limit}."
    needed = found.required_sample_size
    more = f"; {_needed(found)} users would resolve this difference" if needed else ""
    return f"{head}{observed}, not resolved; {limit}{more}."
