"""The layouts by the name that an experiment gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sim.report import paper_tables
from sim.report.dac24_tables import stream_layout
from sim.report.drift import drift_layout
from sim.report.layout import Layout
from sim.report.pooling import Results

LAYOUTS: dict[str, Callable[[Sequence[Results]], Layout]] = {
    "table1": paper_tables.table1_layout,
    "table2": paper_tables.table2_layout,
    "table3": paper_tables.table3_layout,
    "figure2": paper_tables.figure2_layout,
    "thresholds": paper_tables.thresholds_layout,
    "rank": paper_tables.rank_layout,
    "few_shot": paper_tables.few_shot_layout,
    "dac24": stream_layout,
    "drift": drift_layout,
}


def make_layout(name: str, all_results: Sequence[Results]) -> Layout | None:
    """The layout of that name; None for "plain"."""
    maker = LAYOUTS.get(name)
    return maker(all_results) if maker else None
