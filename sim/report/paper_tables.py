"""Several runs as one table of the paper: its rows and columns, its published numbers beside ours.

A layout takes the results of one or more tasks and settings and gives tables, curves and notes.
What a table has no room for (intervals, paired differences) stands in the sections below it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lamp import metrics
from sim.report import paper_values
from sim.report.layout import Layout, Panel, Point, Series
from sim.report.paper_values import Column
from sim.report.pooling import ArmResult, Results, ratio_curves
from sim.report.run_tables import adapter_bytes, peak_memory
from sim.report.score_tables import LAMP_METRICS
from sim.report.tables import (
    NOT_AVAILABLE,
    Cell,
    arrow,
    estimate_cell,
    make_table,
    metric_head,
    percent,
    short,
    signed,
    size,
    tone,
)
from sim.statistics import Estimate
from strategy.methods import METHODS, compared, studied

OURS, PAPER = "ours", "paper"
SHORT_METRICS = {
    "accuracy": "Acc",
    "f1": "F1",
    "mae": "MAE",
    "rmse": "RMSE",
    "rouge1": "R-1",
    "rougeL": "R-L",
    "bertscore": "BERT",
}
NOT_COMPARABLE = (
    "ours: this project's runs; paper: the published number. Method and protocol are the paper's, "
    "models and data are not, so the numbers are not expected to match; compare the order of the "
    "methods. Bold and starred: the paired difference to Direct-FT over users leaves out zero."
)


def table1_layout(all_results: Sequence[Results]) -> Layout:
    """Table 1: every method by task, the paper's numbers below ours."""
    present = [column_of(arm) for results in all_results for arm in _plain_arms(results)]
    columns = list(dict.fromkeys((*paper_values.COLUMNS, *present)))
    rows: list[list[Cell | str]] = []
    for results in all_results:
        for metric in _metrics(results):
            own = {column_of(arm): _score(arm, metric) for arm in _plain_arms(results)}
            theirs = paper_values.TABLE1.get((results.task.name, metric), {})
            rows.append([_row_title(results, metric), OURS, *(own.get(c, "-") for c in columns)])
            rows.append(["", PAPER, *(_published(theirs.get(c)) for c in columns)])
    table = make_table(["Task", "", *map(column_title, columns)], rows, left=2)
    return Layout(
        "Table 1: methods by task",
        {"table1": table},
        notes=_notes("table1", all_results),
    )


def table2_layout(all_results: Sequence[Results]) -> Layout:
    """Table 2: scores along the share ratio."""
    curves = [(results, curve) for results in all_results for curve in ratio_curves(results)]
    ratios = sorted({*paper_values.RATIOS, *(r for _, curve in curves for r in curve.ratios)})
    rows: list[list[Cell | str]] = []
    for results, curve in curves:
        for metric in _metrics(results):
            found = dict(zip(curve.ratios, curve.arms, strict=True))
            values = [arm.metrics[metric].value for arm in curve.arms if metric in arm.metrics]
            rows.append(
                [
                    _row_title(results, metric),
                    curve.method,
                    *(_score(found[r], metric) if r in found else "-" for r in ratios),
                    short(sum(values) / len(values)),
                    _rho(curve.rho.get(metric)),
                ]
            )
            theirs = paper_values.TABLE2.get((results.task.name, metric))
            if theirs and curve.method == studied():
                mean = sum(theirs.values()) / len(theirs)
                cells = [_published(theirs.get(ratio)) for ratio in ratios]
                rows.append(["", PAPER, *cells, _published(mean), ""])
    head = ["Task", "", *(f"{100 * ratio:g}%" for ratio in ratios), "Avg", "rho"]
    panels = tuple(
        Panel(
            f"{results.task.title}, {results.runs[0].world}",
            "share ratio",
            metrics.headline(results.task)[0],
            tuple(
                Series(curve.method, _points(curve.ratios, curve.arms, results))
                for which, curve in curves
                if which is results
            ),
        )
        for results in all_results
    )
    note = (
        "0% is Direct-FT. Avg: mean over the ratios. rho: Spearman's rank correlation of ratio "
        "and score, its interval over users."
    )
    return Layout(
        "Table 2: share ratio",
        {"table2": make_table(head, rows, left=2)},
        panels,
        (note, *_notes("table2", all_results)),
    )


def table3_layout(all_results: Sequence[Results]) -> Layout:
    """Table 3: ablations."""
    names = {results.task.name for results in all_results}
    present = [column_of(arm) for results in all_results for arm in _plain_arms(results)]
    columns = list(dict.fromkeys((*paper_values.ABLATIONS, *present)))
    cells = [(results, metric) for results in all_results for metric in _metrics(results)]
    head = ["Variant", ""]
    head += [_row_title(results, metric).replace(" ", "\n", 1) for results, metric in cells]
    rows: list[list[Cell | str]] = []
    for column in columns:
        own = [_own(results, column, metric) for results, metric in cells]
        rows.append([_variant_title(column), OURS, *own])
        theirs = [
            _published(paper_values.TABLE3.get((results.task.name, metric), {}).get(column))
            for results, metric in cells
        ]
        if names & {task for task, _ in paper_values.TABLE3} and column in paper_values.ABLATIONS:
            rows.append(["", PAPER, *theirs])
    note = (
        "RS: as many synthetic pairs as the filters keep, drawn at random. -DS: no data "
        "selection. Without any synthetic data: Direct-FT."
    )
    return Layout(
        "Table 3: what the filters are worth",
        {"table3": make_table(head, rows, left=2)},
        notes=(note, *_notes("table3", all_results)),
    )


def figure2_layout(all_results: Sequence[Results]) -> Layout:
    """Figure 2: scores along the number of samples per shared record."""
    return _over_arms(
        "Figure 2: number of samples k",
        "figure2",
        "samples k per shared record",
        all_results,
        lambda arm: None if arm.arm.k is None else float(arm.arm.k),
        (paper_values.FIGURE2,),
    )


def thresholds_layout(all_results: Sequence[Results]) -> Layout:
    """One table of all thresholds, and one panel for each threshold that was varied alone."""
    names = dict.fromkeys(
        arm.arm.thresholds[0][0]
        for results in all_results
        for arm in results.arms
        if len(arm.arm.thresholds) == 1
    )
    rows: list[list[Cell | str]] = []
    for results in all_results:
        for arm in results.arms:
            setting = ", ".join(f"{name} {value:g}" for name, value in arm.arm.thresholds)
            rows.append(
                [
                    _label(results),
                    arm.arm.method,
                    setting or "-",
                    _kept_share(results, arm),
                    *(estimate_cell(arm.metrics.get(m)) for m in _metrics(results)[:1]),
                    _against_baseline(results, arm),
                ]
            )
    head = ["Task", "Method", "Thresholds", "Kept share", "Score", "minus direct_ft"]
    panels = tuple(
        _panel(results, name, lambda arm, name=name: _own_threshold(arm, name))  # type: ignore[misc]
        for results in all_results
        for name in names
    )
    return Layout(
        "Filter thresholds",
        {"thresholds": make_table(head, rows, left=3)},
        panels,
        ("All thresholds choose from the same generated candidates.",),
    )


def rank_layout(all_results: Sequence[Results]) -> Layout:
    """One setting per rank; each has its own runs."""
    ordered = sorted(all_results, key=lambda each: (each.task.name, _rank_of(each)))
    rows: list[list[Cell | str]] = []
    for results in ordered:
        for arm in results.arms:
            rows.append(
                [
                    _label(results),
                    arm.arm.name,
                    f"{_rank_of(results):g}",
                    estimate_cell(arm.metrics.get(metrics.headline(results.task)[0])),
                    size(adapter_bytes(results.runs[0], arm.arm.name)),
                    size(peak_memory(results.runs[0], arm.arm.name)),
                ]
            )
    head = ["Task", "Method", "r", "Score", "Adapter", "Device memory"]
    return Layout(
        "LoRA rank",
        {"rank": make_table(head, rows, left=2)},
        _over_settings(ordered, "LoRA rank r", _rank_of),
        ("alpha stays, so a larger rank scales each update less. M_base is tuned at each rank.",),
    )


def few_shot_layout(all_results: Sequence[Results]) -> Layout:
    """One setting per length of history; each has its own runs."""
    ordered = sorted(all_results, key=lambda each: (each.task.name, _records_of(each)))
    rows: list[list[Cell | str]] = [
        [
            _label(results),
            f"{_records_of(results):g}",
            arm.arm.name,
            estimate_cell(arm.metrics.get(metrics.headline(results.task)[0])),
            _against_baseline(results, arm),
            _kept_share(results, arm),
        ]
        for results in ordered
        for arm in results.arms
    ]
    head = ["Task", "Records", "Method", "Score", "minus direct_ft", "Kept"]
    return Layout(
        "Records per user",
        {"few_shot": make_table(head, rows, left=3)},
        _over_settings(ordered, "records of D_u at most", _records_of),
        (
            "An extension: the paper's target users are its most active ones. M_base, the users "
            "and their queries are the same at every length.",
        ),
    )


def _over_settings(
    ordered: Sequence[Results], xlabel: str, place: Callable[[Results], float]
) -> tuple[Panel, ...]:
    """One panel per task, one curve per arm, over settings of a key."""
    panels = []
    for task in dict.fromkeys(results.task.name for results in ordered):
        own = [results for results in ordered if results.task.name == task]
        names = dict.fromkeys(arm.arm.name for results in own for arm in results.arms)
        metric = metrics.headline(own[0].task)[0]
        series = []
        for name in names:
            points = [
                Point(place(results), found.metrics[metric])
                for results in own
                if (found := results.arm(name)) and metric in found.metrics
            ]
            series.append(Series(name.partition("@")[0], tuple(points)))
        title = f"{own[0].task.title}, {own[0].runs[0].world}"
        panels.append(Panel(title, xlabel, metric, tuple(series)))
    return tuple(panels)


def _over_arms(
    title: str,
    name: str,
    xlabel: str,
    all_results: Sequence[Results],
    place: Callable[[ArmResult], float | None],
    notes: tuple[str, ...],
) -> Layout:
    """Arms down by their place on the axis, tasks across."""
    found = {(arm.arm.method, place(arm)): None for results in all_results for arm in results.arms}
    rows: list[list[Cell | str]] = []
    for method, x in sorted(found, key=lambda each: (each[0], each[1] or 0)):
        row: list[Cell | str] = [method, "-" if x is None else f"{x:g}"]
        for results in all_results:
            matching = [a for a in results.arms if a.arm.method == method and place(a) == x]
            row += _score_and_kept(results, matching[0]) if matching else ["-", "-"]
        rows.append(row)
    head = ["Method", "k"]
    for results in all_results:
        label = _label(results)
        head += [f"{label}\n{metric_head(metrics.headline(results.task)[0])}", f"{label}\nkept"]
    panels = tuple(_panel(results, xlabel, place) for results in all_results)
    return Layout(title, {name: make_table(head, rows, left=1)}, panels, notes)


def _score_and_kept(results: Results, arm: ArmResult) -> list[Cell | str]:
    metric = metrics.headline(results.task)[0]
    return [estimate_cell(arm.metrics.get(metric)), _kept_share(results, arm)]


def _panel(results: Results, xlabel: str, place: Callable[[ArmResult], float | None]) -> Panel:
    metric = metrics.headline(results.task)[0]
    series: list[Series] = []
    for method in dict.fromkeys(arm.arm.method for arm in results.arms):
        arms = [each for each in results.arms if each.arm.method == method]
        arms = [each for each in arms if metric in each.metrics]
        points = [Point(x, arm.metrics[metric]) for arm in arms if (x := place(arm)) is not None]
        if points:
            series.append(Series(method, tuple(sorted(points, key=lambda point: point.x))))
        elif arms and len(arms) == 1:
            series.append(Series(method, (), arms[0].metrics[metric]))
    title = f"{results.task.title}, {results.runs[0].world}"
    return Panel(title, xlabel, metric, tuple(series))


def _points(
    ratios: Sequence[float], arms: Sequence[ArmResult], results: Results
) -> tuple[Point, ...]:
    metric = metrics.headline(results.task)[0]
    return tuple(
        Point(ratio, arm.metrics[metric])
        for ratio, arm in zip(ratios, arms, strict=True)
        if metric in arm.metrics
    )


def _plain_arms(results: Results) -> list[ArmResult]:
    """Arms without k, thresholds or epsilon of their own: those that a row of a table can hold."""
    return [arm for arm in results.arms if arm.arm.plain]


def column_of(arm: ArmResult) -> Column:
    """Where an arm stands in the paper's tables."""
    return arm.arm.method, arm.arm.ratio


def column_title(column: Column) -> str:
    """Narrow head of a method's column."""
    method, ratio = column
    title = _title(method)
    return title if ratio is None else f"{title}\n{100 * ratio:g}%"


def _variant_title(column: Column) -> str:
    method, ratio = column
    name = _title(method).replace("\n", "")
    return name if ratio is None else f"{name} {100 * ratio:g}%"


def _title(method: str) -> str:
    return METHODS[method].heading if method in METHODS else method


def _row_title(results: Results, metric: str) -> str:
    return f"{_label(results)} {SHORT_METRICS[metric]} {arrow(metric)}"


def _label(results: Results) -> str:
    return results.task.title.partition(" ")[0]


def _metrics(results: Results) -> list[str]:
    """The paper's metrics that some arm has."""
    return [
        name
        for name in LAMP_METRICS[results.task.kind]
        if any(name in arm.metrics for arm in results.arms)
    ]


def _own(results: Results, column: Column, metric: str) -> Cell | str:
    arm = next((arm for arm in _plain_arms(results) if column_of(arm) == column), None)
    return _score(arm, metric) if arm else "-"


def _score(arm: ArmResult, metric: str) -> Cell:
    """A score; starred where it differs from Direct-FT beyond what the users leave open."""
    estimate = arm.metrics.get(metric)
    if estimate is None:
        return Cell(NOT_AVAILABLE)
    against = arm.differences.get(compared()[0], {}).get(metric)
    judged = tone(metric, against) if against else "plain"
    return Cell(short(estimate.value) + ("" if judged == "plain" else "*"), tone=judged)


def _published(value: float | None) -> str:
    return "-" if value is None else short(value)


def _rho(estimate: Estimate | None) -> Cell:
    if estimate is None:
        return Cell(NOT_AVAILABLE)
    if estimate.low is None or estimate.high is None:
        return Cell(f"{estimate.value:+.2f}")
    return Cell(f"{estimate.value:+.2f}", f"[{estimate.low:+.2f}, {estimate.high:+.2f}]")


def _kept_share(results: Results, arm: ArmResult) -> str:
    lines = [
        line
        for run in results.runs
        for (name, _), line in run.augmentations.items()
        if name == arm.arm.name
    ]
    if not lines:
        return "-"
    return percent(sum(line.kept for line in lines), sum(line.generated for line in lines))


def _against_baseline(results: Results, arm: ArmResult) -> Cell:
    metric = metrics.headline(results.task)[0]
    found = arm.differences.get(compared()[0], {}).get(metric)
    if found is None:
        return Cell("-")
    detail = "" if found.low is None else f"[{signed(found.low)}, {signed(found.high)}]"
    return Cell(signed(found.value), detail, tone(metric, found))


def _own_threshold(arm: ArmResult, name: str) -> float | None:
    own = dict(arm.arm.thresholds)
    return own.get(name) if len(own) == 1 else None


def _rank_of(results: Results) -> float:
    return float(results.runs[0].config.qlora.rank)


def _records_of(results: Results) -> float:
    return float(results.runs[0].config.target_records or results.runs[0].config.max_records or 0)


def _notes(name: str, all_results: Sequence[Results]) -> tuple[str, ...]:
    """How to read the table, and the contradictions that concern the tasks at hand."""
    tasks = {results.task.name for results in all_results}
    found = [text for task, text in paper_values.CONTRADICTIONS[name] if not task or task in tasks]
    intro = "Where the published numbers contradict each other:"
    return (NOT_COMPARABLE, *([intro + " " + " ".join(found)] if found else []))
