"""Pictures: scores with intervals, curves, share ratio against score, losses.

Colours are Okabe and Ito's, told apart with every kind of colour vision, and fixed per method, so
a method looks the same in every picture; markers differ too. Figures are drawn without pyplot:
nothing global is touched, and the same numbers give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from lamp import metrics
from sim import statistics
from sim.report.frames import effective_ratio, user_scores
from sim.report.layout import Layout, Panel
from sim.report.pictures import STYLE, save
from sim.report.pooling import ArmResult, Results
from sim.report.run_records import ArmName, Run
from sim.report.score_tables import LAMP_METRICS
from sim.report.tables import LOWER_IS_BETTER, metric_head, metric_title, number, signed
from sim.statistics import Floats, Resampling
from strategy.methods import METHODS, compared, is_oracle

MOST_PANELS = 3  # side by side
DARK = "#333333"
OTHER_COLOURS = ("#000000", "#CC79A7", "#E69F00", "#009E73", "#0072B2", "#D55E00", "#56B4E9")
OTHER_MARKERS = ("^", "P", "X", "<", ">", "p", "h")
LINES = ("-", "--", "-.", ":")
CURVE_POINTS = 101
FEW_CURVES = 5  # with more, bands would hide one another
BAND = (0.1, 0.9)  # shown users of a loss curve
FEW_RATIOS = 8  # up to so many distinct ratios get means, more get a straight line
BAND_RESAMPLES = 1000


def draw_run(results: Results, layout: Layout | None = None) -> tuple[Path, ...]:
    """Draw every picture that the run has data for, into its plots folder."""
    run = results.runs[0]
    folder = run.folder / "plots"
    figures = {
        "scores": scores_figure(results),
        "share_ratio": ratio_figure(run, results.resampling),
        "loss_curves": loss_figure(run),
        "curves": curves_figure(layout.panels) if layout else None,
    }
    return tuple(save(figure, folder / f"{name}.png") for name, figure in figures.items() if figure)


def curves_figure(panels: Sequence[Panel]) -> Figure | None:
    """Curves with intervals over users, one panel per task or axis; references lie flat."""
    drawn = [panel for panel in panels if any(series.points for series in panel.series)]
    if not drawn:
        return None
    columns = min(len(drawn), MOST_PANELS)
    rows = -(-len(drawn) // columns)
    with rc_context(STYLE):
        figure = Figure(figsize=(1.0 + 4.6 * columns, 0.9 + 3.6 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).flat
        for axis, panel in zip(axes, drawn, strict=False):
            _draw_panel(axis, panel)
        for axis in list(axes)[len(drawn) :]:
            axis.set_visible(False)
        lines = dict.fromkeys(
            (series.method, series.label or series.method, series.dashed)
            for panel in drawn
            for series in panel.series
        )
        handles = [
            Line2D(
                [], [], color=colour, marker=marker, linewidth=2, linestyle=_dash(dashed),
                markerfacecolor=_face(colour, dashed), label=label,
            )
            for method, label, dashed in lines
            for colour, marker in [look(method)]
        ]  # fmt: skip
        figure.legend(handles=handles, loc="outside lower center", ncols=5)
    return figure


def _dash(dashed: bool) -> Literal["-", "--"]:
    return "--" if dashed else "-"


def _face(colour: str, dashed: bool) -> str:
    """Markers of dashed lines are hollow: their dashes hardly show in a legend."""
    return "white" if dashed else colour


def _draw_panel(axis: Axes, panel: Panel) -> None:
    for series in panel.series:
        colour, marker = look(series.method)
        if series.level is not None:
            axis.axhline(series.level.value, color=colour, linewidth=2, linestyle="--")
        points = series.points
        x = [point.x for point in points]
        y = [point.estimate.value for point in points]
        style: Any = {"color": colour, "marker": marker, "linestyle": _dash(series.dashed)}
        axis.plot(x, y, linewidth=2, markerfacecolor=_face(colour, series.dashed), **style)
        ends = [
            (point.x, point.estimate.low, point.estimate.high)
            for point in points
            if point.estimate.low is not None and point.estimate.high is not None
        ]
        if ends:
            places, low, high = np.array(ends, dtype=np.float64).T
            axis.fill_between(places, low, high, color=colour, alpha=0.15, linewidth=0)
    axis.set_title(panel.title)
    axis.set_xlabel(panel.xlabel)
    axis.set_ylabel(f"{metric_title(panel.metric)} ({_better(panel.metric)})")
    ticks = sorted({point.x for series in panel.series for point in series.points})
    if len(ticks) <= FEW_RATIOS:
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])


def scores_figure(results: Results) -> Figure | None:
    """Each metric per arm with its interval, and the headline against the first reference."""
    arms = [arm for arm in results.arms if arm.metrics]
    names = [
        name for name in LAMP_METRICS[results.task.kind] if any(name in arm.metrics for arm in arms)
    ]
    if not names:
        return None
    reference = next((arm for each in compared() for arm in arms if arm.arm.name == each), None)
    panels = len(names) + (reference is not None and len(arms) > 1)
    with rc_context(STYLE):
        figure = Figure(figsize=(2.0 + 2.7 * panels, 1.3 + 0.5 * len(arms)), layout="constrained")
        axes = figure.subplots(1, panels, sharey=True, squeeze=False)[0]
        for axis, name in zip(axes, names, strict=False):
            _draw_scores(axis, arms, name)
        if panels > len(names) and reference is not None:
            _draw_differences(axes[-1], arms, reference, names[0])
        axes[0].set_yticks(range(len(arms)), [_label(arm.arm) for arm in arms])
        axes[0].set_ylim(len(arms) - 0.4, -0.7)  # first arm on top, room for its number
        figure.suptitle(_title(results))
    return figure


def _draw_scores(axis: Axes, arms: Sequence[ArmResult], name: str) -> None:
    for place, arm in enumerate(arms):
        if estimate := arm.metrics.get(name):
            _draw_interval(axis, place, estimate, arm.arm, number(estimate.value))
    _finish_panel(axis, metric_head(name))


def _draw_differences(
    axis: Axes, arms: Sequence[ArmResult], reference: ArmResult, name: str
) -> None:
    axis.axvline(0, color=DARK, linewidth=1)
    for place, arm in enumerate(arms):
        found = arm.differences.get(reference.arm.name, {}).get(name)
        if arm.arm == reference.arm:
            _write(axis, 0, place, "reference")
        elif found:
            _draw_interval(axis, place, found, arm.arm, signed(found.value))
    arrow = metric_head(name)[-1]
    _finish_panel(axis, f"{metric_title(name)} minus {reference.arm.name}'s {arrow}")


def _draw_interval(
    axis: Axes, place: int, estimate: statistics.Estimate, arm: ArmName, text: str
) -> None:
    colour, marker = look(arm.method)
    if estimate.low is not None and estimate.high is not None:
        axis.plot([estimate.low, estimate.high], [place, place], color=colour, linewidth=2)
    axis.plot(estimate.value, place, marker=marker, color=colour, markersize=7, linestyle="none")
    _write(axis, estimate.value, place, text)
    if len(estimate.per_seed) > 1:
        places = [place + 0.22] * len(estimate.per_seed)
        axis.plot(estimate.per_seed, places, "|", color=colour, markersize=7)


def _write(axis: Axes, x: float, place: int, text: str) -> None:
    """Write above a row, legible on lines."""
    axis.annotate(
        text,
        (x, place),
        (0, 7),
        textcoords="offset points",
        ha="center",
        fontsize=8.5,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
    )


def _finish_panel(axis: Axes, title: str) -> None:
    axis.set_title(title)
    axis.margins(x=0.15)
    axis.xaxis.set_major_locator(MaxNLocator(4))
    axis.tick_params(axis="y", length=0)


@dataclass(frozen=True, slots=True)
class Points:
    """One method's users: share ratio against score, one point per arm and user."""

    method: str
    users: tuple[str, ...]
    ratios: Floats
    values: Floats


def ratio_figure(run: Run, resampling: Resampling) -> Figure | None:
    """Share ratio against score per user, and against the gain over the reference."""
    if not run.preferences:
        return None
    name = metrics.headline(run.task)[0]
    scores = {arm.name: _user_values(run, arm.name, name) for arm in run.arms}
    absolute = ratio_points(run, scores)
    if not absolute:
        return None
    reference = next((each for each in compared() if scores.get(each)), None)
    gains = ratio_points(run, _gains(scores, reference)) if reference else []
    with rc_context(STYLE):
        figure = Figure(figsize=(10.5 if gains else 6.0, 4.6), layout="constrained")
        axes = figure.subplots(1, 2 if gains else 1, squeeze=False)[0]
        _draw_ratios(axes[0], absolute, resampling, banded=False)
        axes[0].set_ylabel(metric_title(name))
        axes[0].set_title(f"{metric_title(name)} of each user ({_better(name)})")
        if gains:
            axes[1].axhline(0, color=DARK, linewidth=1)
            _draw_ratios(axes[1], gains, resampling, banded=True)
            side = "below" if name in LOWER_IS_BETTER else "above"
            axes[1].set_ylabel(f"difference in {metric_title(name)}")
            axes[1].set_title(f"minus the same user's {reference} ({side} 0 is better)")
        figure.legend(handles=_handles(absolute), loc="outside lower center", ncols=5)
        figure.suptitle(f"{run.task.title}, {run.world}: share ratio and score")
    return figure


def _handles(groups: Sequence[Points]) -> list[Line2D]:
    looks = [(points.method, *look(points.method)) for points in groups]
    return [
        Line2D([], [], color=colour, marker=marker, linewidth=2, label=method)
        for method, colour, marker in looks
    ]


def _user_values(run: Run, arm: str, metric: str) -> dict[str, float]:
    scores = user_scores(run, arm)
    return {user: float(row[metric]) for user, row in scores.items() if metric in row}


def _gains(
    scores: Mapping[str, Mapping[str, float]], reference: str
) -> dict[str, dict[str, float]]:
    base = scores[reference]
    return {
        arm: {user: value - base[user] for user, value in values.items() if user in base}
        for arm, values in scores.items()
        if arm != reference
    }


def ratio_points(run: Run, values: Mapping[str, Mapping[str, float]]) -> list[Points]:
    """Gather the users' points per method; all share ratios of a method together."""
    by_method: dict[str, list[tuple[str, float, float]]] = {}
    for arm in run.arms:
        for user, value in values.get(arm.name, {}).items():
            ratio = effective_ratio(run, arm, user)
            if ratio is not None and not is_oracle(arm.method):
                by_method.setdefault(arm.method, []).append((user, ratio, value))
    found = []
    for method, rows in by_method.items():
        users, ratios, scores = zip(*rows, strict=True)
        found.append(Points(method, users, np.array(ratios), np.array(scores)))
    return found


def _draw_ratios(
    axis: Axes, groups: Sequence[Points], resampling: Resampling, *, banded: bool
) -> None:
    for points in groups:
        colour, marker = look(points.method)
        axis.scatter(
            points.ratios, points.values, marker=marker, color=colour, s=26, alpha=0.4, linewidth=0
        )
        trend = ratio_trend(points, resampling)
        few = trend.ratios.size <= FEW_RATIOS
        axis.plot(
            trend.ratios, trend.middle, color=colour, linewidth=2, marker=marker if few else ""
        )
        if banded and trend.ratios.size > 1:
            axis.fill_between(
                trend.ratios, trend.low, trend.high, color=colour, alpha=0.12, linewidth=0
            )
    axis.set_xlabel("share ratio in effect (part of D_u)")
    axis.set_xlim(-0.04, 1.04)


@dataclass(frozen=True, slots=True)
class Trend:
    """Middle of the users' points along the ratio, with a pointwise band over users."""

    ratios: Floats
    middle: Floats
    low: Floats
    high: Floats


def ratio_trend(points: Points, resampling: Resampling) -> Trend:
    """Means per ratio where there are few ratios, a least-squares line where there are many.

    The band resamples users, so several points of one user stay together.
    """
    users, place = np.unique(points.users, return_inverse=True)
    few = Resampling(BAND_RESAMPLES, resampling.confidence, resampling.seed)
    weights = np.vstack(
        [np.ones((1, len(place))), statistics.draw_weights(len(users), few)[:, place]]
    )
    grid = np.unique(points.ratios)
    if grid.size <= FEW_RATIOS:
        fitted = _weighted_means(points, weights, grid)
    else:
        grid = np.linspace(grid[0], grid[-1], 50)
        fitted = _weighted_lines(points, weights, grid)
    tail = (1 - resampling.confidence) / 2
    bands = [np.quantile(column[np.isfinite(column)], (tail, 1 - tail)) for column in fitted[1:].T]
    low, high = np.array(bands).T
    return Trend(grid, fitted[0], low, high)


def _weighted_means(points: Points, weights: Floats, grid: Floats) -> Floats:
    """(B + 1, G): mean score at each ratio under each row of weights."""
    here = (points.ratios[:, None] == grid[None, :]).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        means: Floats = (weights * points.values) @ here / (weights @ here)
    return means


def _weighted_lines(points: Points, weights: Floats, grid: Floats) -> Floats:
    """(B + 1, G): weighted least-squares line at each ratio under each row of weights."""
    total = weights.sum(axis=1)
    mean_x, mean_y = weights @ points.ratios / total, weights @ points.values / total
    spread = weights @ points.ratios**2 / total - mean_x**2
    shared = weights @ (points.ratios * points.values) / total - mean_x * mean_y
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = np.where(spread > 0, shared / spread, np.nan)
    lines: Floats = mean_y[:, None] + slope[:, None] * (grid[None, :] - mean_x[:, None])
    return lines


def loss_figure(run: Run) -> Figure | None:
    """Training loss per method along the training: mean over users and the middle 80% of them."""
    curves = {arm: found for arm in run.arms if (found := loss_curves(run, arm.name)).size}
    if not curves:
        return None
    styles: dict[str, cycle[str]] = {}
    with rc_context(STYLE):
        figure = Figure(figsize=(6.4, 5.0), layout="constrained")
        axis = figure.subplots()
        x = np.linspace(0, 100, CURVE_POINTS)
        for arm, found in curves.items():
            colour, _ = look(arm.method)
            style = next(styles.setdefault(arm.method, cycle(LINES)))
            low, high = np.quantile(found, BAND, axis=0)
            if len(curves) <= FEW_CURVES:
                axis.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
            axis.plot(
                x,
                found.mean(axis=0),
                style,
                color=colour,
                linewidth=2,
                label=f"{arm.name} ({len(found)} users)",
            )
        axis.set_xlabel("part of a user's training, %")
        axis.set_ylabel("loss, nats per scored token")
        axis.set_xlim(0, 100)
        band = "; band: middle 80% of users" if len(curves) <= FEW_CURVES else ""
        axis.set_title(f"{run.task.title}, {run.world}: training of the adapters")
        figure.legend(title=f"mean{band}", loc="outside lower center", ncols=2)
    return figure


def loss_curves(run: Run, arm: str) -> Floats:
    """Every user's losses on a common grid: (users, CURVE_POINTS), empty where nobody trained."""
    grid = np.linspace(0, 1, CURVE_POINTS)
    curves = []
    for (name, _), line in run.adaptations.items():
        losses = np.array(line.losses)
        losses = losses[np.isfinite(losses)]
        if name == arm and losses.size:
            curves.append(np.interp(grid, np.linspace(0, 1, losses.size), losses))
    return np.array(curves)


def look(method: str) -> tuple[str, str]:
    """Colour and marker of a method."""
    place = sum(method.encode()) % len(OTHER_COLOURS)
    known = METHODS.get(method)
    colour, marker = (known.colour, known.marker) if known else ("", "")
    return colour or OTHER_COLOURS[place], marker or OTHER_MARKERS[place]


def _label(arm: ArmName) -> str:
    return f"{arm.name} *" if is_oracle(arm.method) else arm.name


def _better(name: str) -> str:
    return "lower is better" if name in LOWER_IS_BETTER else "higher is better"


def _title(results: Results) -> str:
    run, seeds = results.runs[0], len(results.runs)
    repeated = f", {seeds} seeds" if seeds > 1 else ""
    return (
        f"{run.task.title}, {run.world}{repeated}: {results.resampling.level} intervals over users"
    )
