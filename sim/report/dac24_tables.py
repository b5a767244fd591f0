"""Runs of streaming devices as the figures and the table of Qin et al. (DAC'24).

Figure 2: learning curves and their ends; Table 4: each score alone and all together; Figure 3:
texts per kept record. A sweep over ``stream.sets`` or ``stream.bins`` gives one row per setting.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from lamp import metrics
from sim.report import dac24_values as paper
from sim.report.layout import Layout, Panel, Point, Series
from sim.report.pooling import ArmResult, Results
from sim.report.run_records import Adaptation
from sim.report.tables import (
    Cell,
    Table,
    count,
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

SELECTION, SYNTHESIS, CURVE = range(3)  # places in Adaptation.phase_seconds


def stream_layout(all_results: Sequence[Results]) -> Layout:
    """Figure 2, Table 4, Figure 3, gains and costs, as far as the runs have them."""
    tables = {
        "figure2": _curve_table(all_results),
        "figure2_ends": _beside(all_results, (paper.OURS, *paper.RIVALS), paper.FIGURE2),
        "table4": _beside(all_results, (*paper.ALONE, paper.OURS), paper.TABLE4),
        "figure3": _figure3(all_results),
        "gains": _gains(all_results),
        "costs": _costs(all_results),
    }
    return Layout(
        "Qin et al. (DAC'24): selection from a stream and self-synthesis",
        {name: table for name, table in tables.items() if table is not None},
        tuple(_panel(results) for results in all_results),
        (paper.CAUTION, paper.NOT_TO_BE_HAD),
    )


def lines_of(results: Results, arm: str) -> list[Adaptation]:
    """What the adaptation of one streaming arm took, over all users and seeds."""
    return [
        line
        for run in results.runs
        for (name, _), line in run.adaptations.items()
        if name == arm and line.epoch_seconds
    ]


def curve_of(results: Results, arm: str) -> tuple[Point, ...]:
    """The learning curve: the mean over the users who have a point there."""
    by_place: dict[int, list[float]] = {}
    for line in lines_of(results, arm):
        for seen, value in zip(line.curve_seen, line.curve, strict=True):
            by_place.setdefault(seen, []).append(value)
    return tuple(
        Point(float(seen), Estimate(fmean(values), None, None, ()))
        for seen, values in sorted(by_place.items())
    )


def selection_share(line: Adaptation) -> float:
    """Part of a device's time that went into selection; the curve's answers do not count."""
    selection, synthesis, _ = line.phase_seconds
    total = selection + synthesis + line.seconds
    return selection / total if total else 0.0


def _streaming(results: Results) -> list[ArmResult]:
    return [arm for arm in results.arms if lines_of(results, arm.arm.name)]


def _setting(results: Results) -> str:
    stream = results.runs[0].config.stream
    return f"{results.task.title.partition(' ')[0]}, {stream.bins} bins, {stream.sets} texts"


def _curve_table(all_results: Sequence[Results]) -> Table | None:
    rows: list[list[Cell | str]] = []
    places = sorted(
        {
            point.x
            for results in all_results
            for arm in _streaming(results)
            for point in curve_of(results, arm.arm.name)
        }
    )
    for results in all_results:
        for arm in _streaming(results):
            found = {point.x: point.estimate.value for point in curve_of(results, arm.arm.name)}
            cells = [short(found[x]) if x in found else "-" for x in places]
            users = str(len(lines_of(results, arm.arm.name)) // len(results.runs))
            rows.append([_setting(results), arm.arm.name, users, *cells])
    if not places:
        return None
    return make_table(
        ["Setting", "Method", "Users", *(f"{x:g} seen" for x in places)], rows, left=2
    )


def _beside(
    all_results: Sequence[Results],
    methods: Sequence[str],
    published: dict[str, tuple[float, ...]],
) -> Table | None:
    """Our score after the whole stream, and the paper's by data set."""
    rows: list[list[Cell | str]] = []
    for method in methods:
        own = [_score(results, method) for results in all_results]
        rows.append([method, *own, *map(short, published[method])])
    if not any(results.arm(method) for results in all_results for method in methods):
        return None
    ours = [f"ours: {_setting(results)}\n{_metric(results)}" for results in all_results]
    return make_table(["Method", *ours, *(f"paper:\n{name}" for name in paper.DATASETS)], rows)


def _figure3(all_results: Sequence[Results]) -> Table | None:
    """Score and time per epoch by texts per record; the paper's beside."""
    rows: list[list[Cell | str]] = []
    for results in sorted(all_results, key=lambda each: each.runs[0].config.stream.sets):
        lines = lines_of(results, paper.OURS)
        if lines:
            sets = results.runs[0].config.stream.sets
            published = paper.FIGURE3.get(sets)
            rows.append(
                [
                    str(sets),
                    _score(results, paper.OURS),
                    f"{fmean(line.epoch_seconds[-1] for line in lines):.2f} s",
                    "-" if published is None else short(published),
                ]
            )
    head = ["Texts per record", "ours", "ours: time per epoch", "paper: MedDialog ROUGE-1"]
    return make_table(head, rows) if rows else None


def _gains(all_results: Sequence[Results]) -> Table | None:
    """dac24 against every other arm: paired difference, and relative gain beside the paper's."""
    rows: list[list[Cell | str]] = []
    for results in all_results:
        ours = results.arm(paper.OURS)
        for other in results.arms if ours else ():
            if other.arm.name == paper.OURS or ours is None:
                continue
            rows.append(
                [
                    _setting(results),
                    other.arm.name,
                    _difference(results, ours, other.arm.name),
                    _relative(ours, other, metrics.headline(results.task)[0]),
                    _published_gain(other.arm.name),
                ]
            )
    head = ["Setting", "dac24 against", "difference", "relative gain", "paper's gain"]
    return make_table(head, rows, left=2) if rows else None


def _difference(results: Results, ours: ArmResult, other: str) -> Cell:
    metric = metrics.headline(results.task)[0]
    found = ours.differences.get(other, {}).get(metric)
    if found is None:
        return Cell("-")
    detail = "" if found.low is None else f"[{signed(found.low)}, {signed(found.high)}]"
    return Cell(signed(found.value), detail, tone(metric, found))


def _relative(ours: ArmResult, other: ArmResult, metric: str) -> str:
    mine, theirs = ours.metrics.get(metric), other.metrics.get(metric)
    if mine is None or theirs is None or not theirs.value:
        return "-"
    return f"{100 * (mine.value / theirs.value - 1):+.1f}%"


def _published_gain(method: str) -> str:
    """The range of the paper's relative gains over its data sets."""
    theirs = paper.FIGURE2.get(method) or paper.TABLE4.get(method)
    if theirs is None:
        return "-"
    ours = paper.FIGURE2[paper.OURS] if method in paper.FIGURE2 else paper.TABLE4[paper.OURS]
    gains = [100 * (mine / other - 1) for mine, other in zip(ours, theirs, strict=True)]
    claimed = f"; claimed: up to {100 * paper.CLAIMED_GAIN:.0f}%" if method in paper.RIVALS else ""
    return f"{min(gains):+.0f} to {max(gains):+.0f}%{claimed}"


def _costs(all_results: Sequence[Results]) -> Table | None:
    rows: list[list[Cell | str]] = []
    for results in all_results:
        for arm in _streaming(results):
            lines = lines_of(results, arm.arm.name)
            rows.append([_setting(results), arm.arm.name, *_cost_cells(lines)])
    head = ["Setting", "Method", "Asked the user", "Texts kept", "unreadable", "copies", "unlike"]
    head += [
        "Buffer, most",
        "CV of EOE",
        "CV of DSS",
        "Selection",
        "of the time",
        "Rewriting",
        "Training",
        "per epoch",
    ]
    return make_table(head, rows, left=2) if rows else None


def _cost_cells(lines: Sequence[Adaptation]) -> list[str]:
    written = [sum(column) for column in zip(*(line.synthesis for line in lines), strict=True)]
    texts = [percent(part, sum(written)) if sum(written) else "-" for part in written]
    return [
        count(fmean(line.annotations for line in lines)),
        *texts,
        size(max(line.buffer_bytes for line in lines)),
        *(f"{value:.3f}" for value in _variation(lines)),
        f"{fmean(line.phase_seconds[SELECTION] for line in lines):.2f} s",
        percent(fmean(selection_share(line) for line in lines), 1),
        f"{fmean(line.phase_seconds[SYNTHESIS] for line in lines):.2f} s",
        f"{fmean(line.seconds for line in lines):.2f} s",
        f"{fmean(second for line in lines for second in line.epoch_seconds):.3f} s",
    ]


def _variation(lines: Sequence[Adaptation]) -> tuple[float, float]:
    """Coefficients of variation of two scores over a stream, mean over the users."""
    told = [line.variation for line in lines if line.variation]
    return (fmean(each[0] for each in told), fmean(each[1] for each in told)) if told else (0, 0)


def _panel(results: Results) -> Panel:
    metric = metrics.headline(results.task)[0]
    flat = [
        Series(arm.arm.name, (), arm.metrics[metric])
        for arm in results.arms
        if not lines_of(results, arm.arm.name) and metric in arm.metrics
    ]
    curves = [Series(arm.arm.name, curve_of(results, arm.arm.name)) for arm in _streaming(results)]
    return Panel(_setting(results), "records of the stream seen", metric, (*curves, *flat))


def _score(results: Results, method: str) -> Cell | str:
    arm = results.arm(method)
    metric = metrics.headline(results.task)[0]
    return estimate_cell(arm.metrics.get(metric)) if arm else "-"


def _metric(results: Results) -> str:
    return metric_head(metrics.headline(results.task)[0])
