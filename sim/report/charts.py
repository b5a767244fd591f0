"""The charts of a run, as Vega-Lite through Altair, each made from the frames of the run.

A chart says what it shows in words (``alt``), so that nobody needs to see it. Colours are those of
the methods everywhere; text and lines take the page's own colours, in light and in dark.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from itertools import cycle
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from lamp import metrics
from sim.report.contrasts import primary_pairs
from sim.report.figure import WIDTH, Figure, colour_of, spec_of
from sim.report.filter_tables import waterfall
from sim.report.frames import ledger_frame, phases_frame, training_frame, users_frame
from sim.report.further_charts import devices_figure, leakage_figure, stream_figure
from sim.report.layout import Layout, Panel, Point, Series
from sim.report.pooling import Results
from sim.report.run_records import Run
from sim.report.sharing import EVERYONE, Share, shares
from sim.report.tables import METRIC_TITLES, metric_head, metric_title
from sim.report.trend import ratio_trend
from sim.report.verdict import shown_gains
from sim.statistics import Estimate
from strategy.ledger import WITHDRAWAL
from strategy.methods import METHODS, compared, studied

MOST_POINTS = 400  # users of a scatter; beyond, a part is drawn, and said so
LEAST_BYTES = 1000  # below it the scale of bytes is linear
MOST_STEPS = 80  # points of a loss curve
BRUSH = "selected"
GROUP = "privacy group"
FEWEST_RATIOS = 2
FEWEST_IN_TREND = 3  # users
UNFILTERED = 2  # gates of an arm that only reads replies
GROUP_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7")
DIRECTIONS = alt.Scale(range=["#0072B2", "#D55E00"])


GAIN_AXES = {
    "ratio": "share of the history that the user lets go",
    "kept": "kept synthetic pairs of the user",
}
GAIN_SCALES = {"ratio": alt.Scale(domain=[0, 1]), "kept": alt.Scale(zero=True)}


def figures(results: Results, layout: Layout | None = None) -> tuple[Figure, ...]:
    """Every chart that the run has data for, in the order of the page."""
    run = results.runs[0]
    found = (
        scores_figure(results),
        gains_figure(results),
        curves_figure("curves", layout.title, layout.panels) if layout else None,
        sharing_figure(results),
        filters_figure(run),
        wire_figure(run),
        losses_figure(run),
        None if run.config.layout == "dac24" else stream_figure(run),  # has its curves above
        devices_figure(run),
        leakage_figure(results),
        phases_figure(run),
    )
    return tuple(figure for figure in found if figure is not None)


def scores_figure(results: Results) -> Figure | None:
    """Every arm's headline score with its interval over users."""
    name = metrics.headline(results.task)[0]
    rows: list[dict[str, Any]] = [
        {
            "arm": result.arm.name,
            "value": found.value,
            "low": found.value if found.low is None else found.low,
            "high": found.value if found.high is None else found.high,
            "colour": colour_of(result.arm.method),
        }
        for result in results.arms
        if (found := result.metrics.get(name))
    ]
    if not rows:
        return None
    base = alt.Chart(pd.DataFrame(rows)).encode(
        y=alt.Y("arm:N", sort=None, title=None),
        color=alt.Color("colour:N", scale=None),
        tooltip=["arm", *(alt.Tooltip(each, format=".3f") for each in ("value", "low", "high"))],
    )
    scale = alt.Scale(zero=False)
    ends = base.mark_rule(strokeWidth=3).encode(
        x=alt.X("low:Q", title=metric_head(name), scale=scale), x2="high:Q"
    )
    points = base.mark_point(filled=True, size=90, opacity=1).encode(x="value:Q")
    best = (max if metrics.headline(results.task)[1] else min)(row["value"] for row in rows)
    leading = ", ".join(row["arm"] for row in rows if row["value"] == best)
    return Figure(
        "scores",
        "Scores",
        f"{metric_title(name)} of {len(rows)} methods with {results.resampling.level} intervals; "
        f"the best value is that of {leading}.",
        spec_of((ends + points).properties(width=WIDTH, height=alt.Step(26))),
    )


def gains_figure(results: Results) -> Figure | None:
    """What each user shared against what they gained; a selection chooses users for the table."""
    run, name = results.runs[0], metrics.headline(results.task)[0]
    pairs = primary_pairs(run.config.contrasts, [result.arm for result in results.arms])
    if not pairs:
        return None
    first, second = pairs[0]
    gains = shown_gains(results, first, second, name)
    users = users_frame(run)
    users = users[(users.arm == first) & users.user.isin(gains) & users.ratio.notna()]
    if users.empty:
        return None
    users = users.assign(gain=users.user.map(gains).astype(float)).fillna({"shared": 0})
    shown = users.sample(MOST_POINTS, random_state=0) if len(users) > MOST_POINTS else users
    along = gain_axis(users)
    columns = ["user", "group", "ratio", "shared", "kept", "gain"]
    brush = alt.selection_interval(name=BRUSH, encodings=["x", "y"])
    points = (
        alt.Chart(shown[columns])
        .mark_point(filled=True, size=80)
        .encode(
            x=alt.X(
                f"{along}:Q",
                title=GAIN_AXES[along],
                scale=GAIN_SCALES[along],
                axis=alt.Axis(tickMinStep=0.1 if along == "ratio" else 1),
            ),
            y=alt.Y("gain:Q", title=f"{metric_title(name)}, {first} better than {second} by"),
            color=alt.condition(brush, alt.Color("group:N", title=GROUP), alt.value("#999")),
            shape=alt.Shape("group:N", title=GROUP),
            opacity=alt.condition(brush, alt.value(0.9), alt.value(0.35)),
            tooltip=[*columns[:5], alt.Tooltip("gain", format="+.3f")],
        )
        .add_params(brush)
    )
    zero = alt.Chart(pd.DataFrame({"gain": [0.0]})).mark_rule(strokeDash=[4, 4]).encode(y="gain:Q")
    enough = along == "ratio" and len(users) >= FEWEST_IN_TREND
    trend = _trend(users, results) if enough else []
    notes = [f"Line and band: trend over users, {results.resampling.level}."] if trend else []
    if shown is not users:
        notes.append(f"{MOST_POINTS} of {len(users)} users are drawn.")
    return Figure(
        "gains",
        f"What sharing brings: {first} against {second}",
        f"One point for each of {len(shown)} users: {GAIN_AXES[along]} against the gain; "
        f"{int((users.gain > 0).sum())} of {len(users)} users gain.",
        spec_of(alt.layer(zero, *trend, points).properties(width=WIDTH, height=340)),
        " ".join(notes),
    )


def gain_axis(users: pd.DataFrame) -> str:
    """What the gain is drawn along: the share where users differ in it, else their kept pairs.

    Args:
        users: Rows of one arm of the users' frame.
    """
    varies = users.ratio.nunique() > 1 or users.kept.isna().all()
    return "ratio" if varies else "kept"


def _trend(users: pd.DataFrame, results: Results) -> list[Any]:
    """Band and line of the gain along the ratio."""
    trend = ratio_trend(list(users.ratio), list(users.gain), results.resampling)
    places = pd.DataFrame({each.name: getattr(trend, each.name) for each in fields(trend)})
    along = alt.Chart(places.round(5))
    band = along.mark_area(opacity=0.15).encode(x="ratios:Q", y="low:Q", y2="high:Q")
    return [band, along.mark_line().encode(x="ratios:Q", y="middle:Q")]


def curves_figure(name: str, title: str, panels: Sequence[Panel]) -> Figure | None:
    """Curves with intervals over users, one panel per task or axis; references lie flat."""
    drawn = [panel for panel in panels if any(series.points for series in panel.series)]
    if not drawn:
        return None
    every = {_label(series): series for panel in drawn for series in panel.series}
    colours = alt.Scale(domain=[*every], range=[_colour(series) for series in every.values()])
    dashes = alt.Scale(
        domain=[*every], range=[[6, 4] if each.dashed else [1, 0] for each in every.values()]
    )
    width = WIDTH if len(drawn) == 1 else WIDTH // 2
    charts = [_panel(panel, colours, dashes).properties(width=width, height=260) for panel in drawn]
    words = "; ".join(
        f"{panel.title}: {', '.join(map(_label, panel.series))} along {panel.xlabel}"
        for panel in drawn
    )
    chart = charts[0] if len(charts) == 1 else alt.concat(*charts, columns=2)
    return Figure(name, title, f"{words}.", spec_of(chart))


def _panel(panel: Panel, colours: alt.Scale, dashes: alt.Scale) -> Any:
    rows = [
        [_label(series), point.x, point.estimate.value, point.estimate.low, point.estimate.high]
        for series in panel.series
        for point in series.points
    ]
    frame = pd.DataFrame(rows, columns=["line", "x", "value", "low", "high"])
    metric = metric_head(panel.metric) if panel.metric in METRIC_TITLES else panel.metric
    scale = alt.Scale(type="log" if panel.log else "linear", zero=False, nice=not panel.log)
    base = alt.Chart(frame).encode(
        x=alt.X("x:Q", title=panel.xlabel, scale=scale),
        color=alt.Color("line:N", title=None, scale=colours),
    )
    y = alt.Y("value:Q", title=metric, scale=alt.Scale(zero=False))
    band = base.mark_area(opacity=0.13).encode(y="low:Q", y2="high:Q")
    dash = alt.StrokeDash("line:N", title=None, scale=dashes)
    line = base.mark_line(point=True).encode(y=y, strokeDash=dash)
    flat = [
        [_label(series), series.level.value] for series in panel.series if series.level is not None
    ]
    levels = (
        alt.Chart(pd.DataFrame(flat, columns=["line", "level"]))
        .mark_rule(strokeDash=[6, 4], strokeWidth=2)
        .encode(y="level:Q", color=alt.Color("line:N", title=None, scale=colours))
    )
    layers = [*([levels] if flat else []), *([band, line] if rows else [])]
    return alt.layer(*layers, title=panel.title)


def sharing_figure(results: Results) -> Figure | None:
    """What sharing brings by group: score along the ratio, gain along the records, epsilon.

    None with fewer than two ratios.
    """
    run, name = results.runs[0], metrics.headline(results.task)[0]
    own = [each for each in shares(run, results.resampling) if each.arm.method == studied()]
    found = [each for each in own if each.arm.ratio is not None]
    if len({share.arm.ratio for share in found}) < FEWEST_RATIOS:
        return None
    score = _by_group(found, lambda share: (share.arm.ratio or 0.0, share.score))
    gain = _by_group(found, lambda share: (share.records, share.gain))
    difference = f"{metric_title(name)} minus {compared()[0]}"
    panels = [
        Panel("score by group", "share ratio that the server asks for", name, score),
        Panel("gain by group", "records shared per user, mean of the group", difference, gain),
        Panel("adapters under DP-SGD", "epsilon per record", name, _private(results, name), True),
    ]
    return curves_figure("sharing", f"What sharing brings: {studied()}", panels)


def _by_group(
    found: Sequence[Share], place: Callable[[Share], tuple[float, Estimate | None]]
) -> tuple[Series, ...]:
    groups = dict.fromkeys(share.group for share in found)
    colours = dict(zip(groups, cycle(GROUP_COLOURS), strict=False))
    series = []
    for group, colour in colours.items():
        places = [place(share) for share in found if share.group == group]
        points = tuple(Point(x, estimate) for x, estimate in places if estimate is not None)
        colour = "#000000" if group == EVERYONE else colour
        series.append(Series(group, points, label=group, colour=colour))
    return tuple(series)


def _private(results: Results, name: str) -> tuple[Series, ...]:
    """Score along epsilon per method with DP-SGD; flat what the same method scores without."""
    only, *_ = results.runs[0].config.baselines.dp_epsilons
    found: dict[str, list[Point]] = {}
    for result in results.arms:
        method = METHODS.get(result.arm.method)
        if method is not None and method.private and name in result.metrics:
            epsilon = only if result.arm.epsilon is None else result.arm.epsilon
            found.setdefault(method.name, []).append(Point(epsilon, result.metrics[name]))
    series = []
    for private, points in found.items():
        series.append(Series(private, tuple(sorted(points, key=lambda point: point.x))))
        plain = [arm for arm in results.arms if arm.arm.method == METHODS[private].variant_of]
        if plain and name in plain[-1].metrics:
            name_of, level = plain[-1].arm.method, plain[-1].metrics[name]
            series.append(Series(name_of, (), level, label=f"{name_of}, no DP"))
    return tuple(series)


def _label(series: Series) -> str:
    return series.label or series.method


def _colour(series: Series) -> str:
    return series.colour or colour_of(series.method)


def filters_figure(run: Run) -> Figure | None:
    """How many candidates are left behind each gate, per arm that filters."""
    rows = waterfall(run)
    if not rows:
        return None
    frame = pd.DataFrame(rows, columns=["arm", "gate", "left"])
    asked = frame.groupby("arm").gate.transform("size")
    if (asked > UNFILTERED).any():
        frame = frame[asked > UNFILTERED]
    header = alt.Header(labelAngle=0, labelAlign="left", labelOrient="top")
    chart = (
        alt.Chart(frame)
        .mark_bar()
        .encode(
            x=alt.X("left:Q", title="candidates that are left"),
            y=alt.Y("gate:N", sort=None, title=None),
            row=alt.Row("arm:N", sort=None, title=None, header=header),
            tooltip=["arm", "gate", "left"],
        )
        .properties(width=WIDTH - 90, height=alt.Step(20))
    )
    words = "; ".join(
        f"{arm}: " + ", ".join(f"{left} {gate}" for gate, left in own[["gate", "left"]].values)
        for arm, own in frame.groupby("arm", sort=False)
    )
    return Figure("filters", "What the filters leave", words + ".", spec_of(chart))


def wire_figure(run: Run) -> Figure | None:
    """Bytes per arm and direction."""
    ledger = ledger_frame(run)
    crossed = ledger[ledger.direction.isin(["up", "down"]) & (ledger.kind != WITHDRAWAL)]
    if crossed.empty:
        return None
    sums = crossed.assign(arm=crossed.arm.replace("", "all arms"))
    sums = sums.groupby(["arm", "direction"], sort=False).bytes.sum().reset_index()
    sums["bytes"] = sums.bytes.astype("int64")
    decades = range(3, len(str(int(sums.bytes.max()))) + 1)
    scale = alt.Scale(type="symlog", constant=LEAST_BYTES)
    axis = alt.Axis(
        values=[10**decade for decade in decades], labelExpr="format(datum.value, '~s')"
    )
    chart = (
        alt.Chart(sums)
        .mark_bar()
        .encode(
            x=alt.X("bytes:Q", title="bytes (logarithmic scale)", scale=scale, axis=axis),
            y=alt.Y("arm:N", sort=None, title=None),
            yOffset="direction:N",
            color=alt.Color("direction:N", title=None, scale=DIRECTIONS),
            tooltip=["arm", "direction", alt.Tooltip("bytes", format=",")],
        )
        .properties(width=WIDTH, height=alt.Step(14))
    )
    total = {way: int(own.bytes.sum()) for way, own in sums.groupby("direction")}
    alt_text = (
        f"{total.get('up', 0):,} bytes from devices to the server, {total.get('down', 0):,} back."
    )
    return Figure("wire", "Over the wire", alt_text, spec_of(chart))


def losses_figure(run: Run) -> Figure | None:
    """Mean training loss along the training, per arm; the band holds 80 % of the users."""
    rows = []
    training = training_frame(run)
    for (arm, method), own in training.groupby(["arm", "method"], sort=False):
        known = [losses for losses in own.losses if losses is not None and len(losses) > 1]
        curves = [_along(losses) for losses in known if np.isfinite(losses).all()]
        if not curves:
            continue
        lows, highs = np.quantile(curves, (0.1, 0.9), axis=0)
        middle, parts = np.mean(curves, axis=0), np.linspace(0, 1, MOST_STEPS)
        colour = colour_of(str(method))
        rows += [[arm, colour, *along] for along in zip(parts, lows, middle, highs, strict=True)]
    if not rows:
        return None
    frame = pd.DataFrame(rows, columns=["arm", "colour", "part", "low", "mean", "high"]).round(4)
    arms = list(dict.fromkeys(frame.arm))
    colours = [frame.colour[frame.arm == arm].iloc[0] for arm in arms]
    base = alt.Chart(frame).encode(
        x=alt.X("part:Q", title="part of the training", axis=alt.Axis(format="%")),
        color=alt.Color("arm:N", title=None, scale=alt.Scale(domain=arms, range=colours)),
    )
    band = base.mark_area(opacity=0.12).encode(
        y=alt.Y("low:Q", title="loss, nats per token", scale=alt.Scale(zero=False)), y2="high:Q"
    )
    line = base.mark_line().encode(
        y="mean:Q", strokeDash=alt.StrokeDash("arm:N", title=None, scale=alt.Scale(domain=arms))
    )
    ends = frame.groupby("arm", sort=False)["mean"].agg(["first", "last"])
    words = "; ".join(
        f"{arm} from {row['first']:.2f} to {row['last']:.2f}" for arm, row in ends.iterrows()
    )
    return Figure(
        "losses", "Training on the devices", f"Mean loss: {words}.",
        spec_of((band + line).properties(width=WIDTH, height=260)),
        "Mean over users; the band holds 80 % of them.",
    )  # fmt: skip


def phases_figure(run: Run) -> Figure | None:
    """When each phase ran, one after the other."""
    frame = phases_frame(run)
    frame = frame[frame.seconds > 0]
    if frame.empty:
        return None
    end = frame.seconds.cumsum()
    frame = frame.assign(start=end - frame.seconds, end=end, arm=frame.arm.replace("", "all arms"))
    frame["name"] = frame.arm + ": " + frame.phase
    chart = (
        alt.Chart(frame.round(3))
        .mark_bar()
        .encode(
            x=alt.X("start:Q", title="seconds"),
            x2="end:Q",
            y=alt.Y("name:N", sort=None, title=None),
            color=alt.Color("arm:N", legend=None),
            tooltip=["arm", "phase", alt.Tooltip("seconds", format=",.1f")],
        )
        .properties(width=WIDTH, height=alt.Step(16))
    )
    longest = frame.loc[frame.seconds.idxmax()]
    words = f"{len(frame)} phases, {end.iloc[-1]:,.0f} s in all; the longest is {longest['name']}."
    return Figure("phases", "Where the time went", words, spec_of(chart))


def _along(losses: Sequence[float]) -> list[float]:
    """A loss curve at :data:`MOST_STEPS` places from its first to its last step."""
    places = np.linspace(0, len(losses) - 1, MOST_STEPS)
    return list(np.interp(places, np.arange(len(losses)), losses))
