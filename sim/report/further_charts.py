"""Charts that only some runs have data for: what leaks, kinds of devices, learning on a stream."""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from lamp import metrics
from sim.report import leakage_tables as leakage
from sim.report.device_tables import device_frame
from sim.report.figure import WIDTH, Figure, colour_of, spec_of
from sim.report.frames import leakage_frame, training_frame
from sim.report.pooling import Results
from sim.report.run_records import Run
from sim.report.tables import duration, metric_head, metric_title, number

KIND_COLOURS = ("#D55E00", "#0072B2", "#999999")
DEVICE_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
FEWEST_POINTS = 2  # of a learning curve
OUTER = (0.1, 0.9)  # quantiles over users


def leakage_figure(results: Results) -> Figure | None:
    """Exposure of canaries and membership inference per attacked arm, with intervals over users."""
    frame = leakage_frame(results.runs[0])
    panels, words = [], []
    for column, title, coin in (
        ("exposure", "exposure of canaries, bits", None),
        ("auc", "membership inference, AUC (dashed: a coin's)", leakage.COIN),
    ):
        means = _means(frame, column, results)
        if means.empty:
            continue
        panels.append(_attack(means, title, coin))
        top = means.loc[means.value.idxmax()]
        low, high = number(means.value.min()), number(top.value)
        words.append(
            f"{title.partition(' (')[0]}, mean over users: {low} to {high}, the largest for "
            f"{top.kind} records of {top.arm}"
        )
    if not panels:
        return None
    return Figure(
        "leakage",
        "What leaks",
        f"{'; '.join(words)}.".capitalize().replace(" auc", " AUC"),
        spec_of(alt.concat(*panels, columns=1)),
        leakage.notes(results),
    )


def _means(frame: pd.DataFrame, column: str, results: Results) -> pd.DataFrame:
    """Mean over users of one attack per arm and kind of records, with its interval."""
    rows = []
    for (arm, kind), own in frame[frame[column].notna()].groupby(["arm", "kind"], sort=False):
        found = leakage.mean_over_users(own[column].to_numpy(), results.resampling)
        ends = [found.value if end is None else end for end in (found.low, found.high)]
        rows.append([arm, kind, found.value, *ends, found.users])
    return pd.DataFrame(rows, columns=["arm", "kind", "value", "low", "high", "users"])


def _attack(means: pd.DataFrame, title: str, coin: float | None) -> Any:
    scale = alt.Scale(domain=[*leakage.CLASSES], range=[*KIND_COLOURS])
    base = alt.Chart(means).encode(
        y=alt.Y("arm:N", sort=None, title=None),
        yOffset=alt.YOffset("kind:N", sort=[*leakage.CLASSES]),
        color=alt.Color("kind:N", title="records", scale=scale),
        tooltip=["arm", "kind", *(alt.Tooltip(x, format=".3f") for x in ("value", "low", "high"))],
    )
    along = alt.Scale(zero=False)
    layers = [
        base.mark_rule(strokeWidth=2).encode(
            x=alt.X("low:Q", title=title, scale=along), x2="high:Q"
        ),
        base.mark_point(filled=True, size=60, opacity=1).encode(
            x="value:Q", shape=alt.Shape("kind:N", title="records", scale=_shapes())
        ),
    ]
    if coin is not None:
        line = alt.Chart(pd.DataFrame({"coin": [coin]})).mark_rule(strokeDash=[4, 4])
        layers.append(line.encode(x="coin:Q"))
    return alt.layer(*layers).properties(width=WIDTH, height=alt.Step(13))


def _shapes() -> alt.Scale:
    return alt.Scale(domain=[*leakage.CLASSES], range=["circle", "square", "triangle-up"])


def devices_figure(run: Run) -> Figure | None:
    """Score and simulated times by kind of device; None where devices are alike."""
    frame = device_frame(run)
    if frame is None:
        return None
    metric = metrics.headline(run.task)[0]
    measures = {
        "score": f"{metric_head(metric)}, mean of users",
        "adapting": "adapting, simulated seconds",
        "downloading": "downloading, simulated seconds",
    }
    kinds = list(dict.fromkeys(frame.device))
    panels = [
        _by_device(frame[["arm", "device", "users", "failed", column]], column, title, kinds)
        for column, title in measures.items()
        if frame[column].notna().any()
    ]
    trained = frame.groupby("device", sort=False)[["failed", "adapting", "score"]]
    sums = trained.agg({"failed": "sum", "adapting": "max", "score": "mean"})
    words = "; ".join(
        f"{kind}: {_stated(row.score)} {metric_title(metric)} on average over methods, adapting "
        f"{duration(row.adapting) if np.isfinite(row.adapting) else 'n/a'} at most, "
        f"{int(row.failed)} failed"
        for kind, row in sums.iterrows()
    )
    if not panels:
        return None
    return Figure(
        "devices",
        "Kinds of devices",
        f"{words}.",
        spec_of(alt.concat(*panels, columns=1)),
        "Simulated: training as measured here over the kind's speed, downloads over its link.",
    )


def _stated(value: float) -> str:
    return number(value) if np.isfinite(value) else "no"


def _by_device(frame: pd.DataFrame, column: str, title: str, kinds: list[str]) -> Any:
    return (
        alt.Chart(frame[frame[column].notna()])
        .mark_point(filled=True, size=70, opacity=1)
        .encode(
            x=alt.X(f"{column}:Q", title=title, scale=alt.Scale(zero=column != "score")),
            y=alt.Y("arm:N", sort=None, title=None),
            yOffset=alt.YOffset("device:N", sort=kinds),
            color=alt.Color(
                "device:N", title=None, scale=alt.Scale(domain=kinds, range=[*DEVICE_COLOURS])
            ),
            shape=alt.Shape("device:N", title=None, scale=alt.Scale(domain=kinds)),
            tooltip=["arm", "device", "users", "failed", alt.Tooltip(column, format=".3f")],
        )
        .properties(width=WIDTH, height=alt.Step(13))
    )


def stream_figure(run: Run) -> Figure | None:
    """Learning curves of streaming devices: mean over users, the band holds 80 % of them."""
    training = training_frame(run)
    rows = [
        [line.arm, colour_of(line.method), seen, value]
        for line in training.itertuples()
        for seen, value in zip(line.curve_seen, line.curve, strict=True)
        if np.isfinite(value)
    ]
    points = pd.DataFrame(rows, columns=["arm", "colour", "seen", "value"])
    if points.seen.nunique() < FEWEST_POINTS:
        return None
    by_place = points.groupby(["arm", "colour", "seen"], sort=False).value
    curves = by_place.agg(mean="mean", low=_quantile(OUTER[0]), high=_quantile(OUTER[1]))
    curves = curves.reset_index().round(5)
    arms = list(dict.fromkeys(curves.arm))
    colours = [curves.colour[curves.arm == arm].iloc[0] for arm in arms]
    metric = metrics.headline(run.task)[0]
    scale = alt.Scale(domain=arms, range=colours)
    base = alt.Chart(curves).encode(
        x=alt.X("seen:Q", title="records of the stream seen"),
        color=alt.Color("arm:N", title=None, scale=scale),
    )
    y = alt.Y("low:Q", title=metric_head(metric), scale=alt.Scale(zero=False))
    band = base.mark_area(opacity=0.12).encode(y=y, y2="high:Q")
    line = base.mark_line(point=True).encode(
        y="mean:Q", strokeDash=alt.StrokeDash("arm:N", title=None, scale=alt.Scale(domain=arms))
    )
    ends = curves.groupby("arm", sort=False)["mean"].agg(["first", "last"])
    words = "; ".join(
        f"{arm} from {number(row['first'])} to {number(row['last'])}"
        for arm, row in ends.iterrows()
    )
    return Figure(
        "stream",
        "Learning on the stream",
        f"{metric_title(metric)} while the stream passes: {words}.",
        spec_of((band + line).properties(width=WIDTH, height=260)),
        "Mean over users; the band holds 80 % of them.",
    )


def _quantile(part: float) -> Any:
    return lambda values: values.quantile(part)
