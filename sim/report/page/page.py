"""``report.html``: the verdict, charts to explore, every user, every table, in one file.

Everything stands in the file: no network, no second file. Texts from outside are escaped by the
template or travel as JSON and are shown as text. The charting code is vl-convert's bundle.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import vl_convert
from markupsafe import Markup

from lamp import metrics
from sim.report.charts import BRUSH, gain_axis
from sim.report.contrasts import primary_pairs
from sim.report.figure import Figure
from sim.report.frames import (
    answers_frame,
    augmentation_frame,
    candidates_frame,
    ledger_frame,
    training_frame,
    users_frame,
)
from sim.report.pooling import Results
from sim.report.run_records import Run
from sim.report.tables import LOWER_IS_BETTER, Table, metric_title
from sim.report.verdict import shown_gains, verdict

FOLDER = Path(__file__).resolve().parent
PAGE = "report.html"
MOST_LOSSES = 40  # points of one user's loss curve
MOST_CANDIDATES = 20_000  # whose scores travel in the page
LONGEST = 1e6  # length ratio to an empty text, which is infinite
MOST_TEXTS = 4000  # answers whose texts travel in the page


def render_page(
    results: Results,
    *,
    title: str,
    facts: Sequence[str],
    warnings: Sequence[str],
    headline: Table,
    drawn: Sequence[Figure],
    tables: Mapping[str, tuple[str, Table]],
) -> str:
    """Write the page of one run, or of several seeds of one setting.

    Args:
        results: What was pooled.
        title: Of the page.
        facts: What one must know to make the run again.
        warnings: What to beware of.
        headline: The table on the first screen.
        drawn: The charts.
        tables: Further tables by name, each with its title.
    """
    return _page(
        "page.html",
        title,
        facts,
        _file("page.js"),
        {"specs": {figure.name: figure.spec for figure in drawn}, **_data(results)},
        verdict=verdict(results),
        warnings=warnings,
        metric=metric_title(metrics.headline(results.task)[0]),
        headline=headline,
        tables=tables,
        figures={figure.name: figure for figure in drawn},
        explored=[figure for figure in drawn if figure.name not in ("scores", "gains")],
    )


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting on a page that compares several.

    Attributes:
        title: What it is called beside the others.
        verdict: What was found, a sentence each.
        warnings: What to beware of.
        figure: Its scores; None without a metric.
        tables: Its tables by caption.
        runs: Its runs with their seeds.
    """

    title: str
    verdict: Sequence[str]
    warnings: Sequence[str]
    figure: Figure | None
    tables: Mapping[str, Table]
    runs: str


def render_comparison(
    sections: Sequence[Setting],
    *,
    title: str,
    facts: Sequence[str],
    level: str,
    tables: Mapping[str, Table],
    notes: Sequence[str],
    curves: Figure | None,
) -> str:
    """Write the page of several settings.

    Args:
        sections: The settings.
        title: Of the page.
        facts: What one must know to make the runs again.
        level: Of the intervals, such as "95%".
        tables: What stands above the settings, by caption.
        notes: Below these tables.
        curves: Scores along an axis that the settings share; None without one.
    """
    drawn = [section.figure for section in sections] + [curves]
    return _page(
        "comparison.html",
        title,
        facts,
        "report.draw(); report.onTheme(() => report.draw());",
        {"specs": {figure.name: figure.spec for figure in drawn if figure}},
        level=level,
        tables=tables,
        notes=notes,
        curves=curves,
        sections=sections,
    )


def _page(
    template: str, title: str, facts: Sequence[str], script: str, data: Any, **parts: Any
) -> str:
    """Fill a template; ``script`` is what the page does with its ``data`` and charts."""
    return (
        _environment()
        .get_template(template)
        .render(
            title=title,
            facts=facts,
            css=Markup(_file("page.css")),
            bundle=Markup(_bundle()),
            charts=Markup(_file("charts.js")),
            script=Markup(script),
            data=_json(data),
            **parts,
        )
    )


def _data(results: Results) -> dict[str, Any]:
    """What the page's script works with: one record per user, and how to read it."""
    run, name = results.runs[0], metrics.headline(results.task)[0]
    pairs = primary_pairs(run.config.contrasts, [result.arm for result in results.arms])
    gains = shown_gains(results, *pairs[0], name) if pairs else {}
    users = users_frame(run)
    own = users[users.arm == pairs[0][0]] if pairs else users
    along = gain_axis(own)
    places = dict(zip(own.user, own[along], strict=True))
    return {
        "brush": BRUSH,
        "metric": metric_title(name),
        "higherIsBetter": name not in LOWER_IS_BETTER,
        "contrast": pairs[0] if pairs else None,
        "arms": [result.arm.name for result in results.arms],
        "users": _users(run, users, name, gains, places),
        "candidates": _candidates(run),
    }


def _candidates(run: Run) -> dict[str, Any] | None:
    """Scores of the candidates and the thresholds, for the sliders; None where others decide."""
    frame = candidates_frame(run)
    if frame.empty or run.config.filters.keep_share is not None:
        return None
    shown = frame.sample(min(len(frame), MOST_CANDIDATES), random_state=0)
    filters = run.config.filters
    least = filters.eps_embedding if filters.judge == "embedding" else filters.eps_scf
    return {
        "generated": len(shown),
        "of": len(frame),
        "thresholds": [least, filters.eps_tdf, filters.eps_min_len, filters.eps_max_len],
        "scores": [
            [round(min(float(score), LONGEST), 5) for score in row]
            for row in shown[["consistency", "rouge_l", "length_ratio"]].dropna().values
        ],
    }


def _users(
    run: Run,
    users: pd.DataFrame,
    name: str,
    gains: Mapping[str, float],
    places: Mapping[Any, Any],
) -> list[dict[str, Any]]:
    ledger, made, training = ledger_frame(run), augmentation_frame(run), training_frame(run)
    up = ledger[ledger.direction.isin(["up", "down"])]
    sent = up.groupby(["user", "direction"]).bytes.agg(["sum", "count"])
    own_losses, rejected = dict(iter(training.groupby("user"))), dict(iter(made.groupby("user")))
    texts = _texts(run)
    found = []
    for user, own in users.groupby("user", sort=False):
        first = own.iloc[0]
        shares = own[own.shared.notna()]
        widest = shares.loc[shares.shared.idxmax()] if len(shares) else first
        found.append(
            {
                "user": user,
                "group": _known(first.group),
                "allowed": _known(run.preferences[user].ratio if user in run.preferences else None),
                "shared": _known(widest.shared),
                "kept": _known(widest.kept),
                "records": _known(own.records.max()),
                "gain": _known(gains.get(str(user))),
                "place": _known(places.get(user)),
                "scores": {row.arm: _known(getattr(row, name, None)) for row in own.itertuples()},
                "queries": int(own.queries.max()),
                "failed": [row.arm for row in own.itertuples() if row.failed],
                "wire": {
                    way: sent.loc[(user, way)].tolist()
                    for way in ("up", "down")
                    if (user, way) in sent.index
                },
                "losses": _losses(own_losses.get(user)),
                "rejected": _rejections(rejected.get(user)),
                "texts": texts.get(str(user), []),
            }
        )
    return found


def _losses(training: pd.DataFrame | None) -> dict[str, list[float]]:
    if training is None:
        return {}
    return {
        row.arm: [round(loss, 3) for loss in row.losses[:: max(1, len(row.losses) // MOST_LOSSES)]]
        for row in training.itertuples()
        if row.losses
    }


def _rejections(made: pd.DataFrame | None) -> dict[str, dict[str, int]]:
    if made is None:
        return {}
    reasons = [column for column in made if column.startswith("rejected_")]
    return {
        row["arm"]: {
            "generated": int(row["generated"]),
            "kept": int(row["kept"]),
            **{each.removeprefix("rejected_"): int(row[each]) for each in reasons if row[each] > 0},
        }
        for _, row in made.iterrows()
    }


def _texts(run: Run) -> dict[str, list[dict[str, Any]]]:
    """Answers in words, of runs whose users permitted them to leave."""
    answers = answers_frame(run)
    answers = answers[answers.text.notna()].head(MOST_TEXTS)
    found: dict[str, list[dict[str, Any]]] = {}
    for row in answers.itertuples():
        found.setdefault(row.user, []).append(
            {
                "arm": row.arm,
                "query": row.query,
                "text": row.text,
                "gold": row.gold_text,
                "score": _known(row.score),
            }
        )
    return found


def _known(value: Any) -> Any:
    """A number or word for JSON; None for what is missing."""
    if value is None or pd.isna(value):
        return None
    if isinstance(value, str):
        return value
    number = float(value)
    return int(number) if number.is_integer() else round(number, 4)


def _finite(value: Any) -> Any:
    """``value`` with null for every NaN and infinity, which JSON has no words for."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value


def _json(value: Any) -> Markup:
    """JSON that nothing in it can end: no ``<`` stands in a script of the page."""
    text = json.dumps(_finite(value), ensure_ascii=False, separators=(",", ":"), default=_known)
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Markup(text)


@cache
def _bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script; nothing in it ends a script element."""
    code = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return code.replace("</script", "<\\/script")


@cache
def _file(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=True,
    )
