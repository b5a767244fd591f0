"""One chart of a report: its Vega-Lite specification, its words, its colours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import altair as alt

from strategy.methods import METHODS

WIDTH = 640
OTHER_COLOURS = ("#8C6BB1", "#CC79A7", "#E69F00", "#009E73", "#0072B2", "#D55E00", "#56B4E9")


@dataclass(frozen=True, slots=True)
class Figure:
    """One chart.

    Attributes:
        name: Id in the page.
        title: Heading.
        alt: What it shows, in a sentence.
        spec: Vega-Lite specification.
        note: What a reader must know; "" for nothing.
    """

    name: str
    title: str
    alt: str
    spec: Mapping[str, Any]
    note: str = ""


def spec_of(chart: Any) -> Mapping[str, Any]:
    """The specification of an Altair chart, without colours of text and lines."""
    with alt.data_transformers.enable("default", max_rows=None, consolidate_datasets=True):
        spec: dict[str, Any] = chart.to_dict()
    spec.pop("config", None)  # the page's own, which follows light and dark
    return spec


def colour_of(method: str) -> str:
    """Colour of a method: its own, else one by its name."""
    known = METHODS.get(method)
    return known.colour if known and known.colour else OTHER_COLOURS[sum(method.encode()) % 7]
