"""What several runs look like together: tables, curves and notes, whatever the paper's table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sim.report.tables import Table
from sim.statistics import Estimate


@dataclass(frozen=True, slots=True)
class Point:
    """One place of a curve."""

    x: float
    estimate: Estimate


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a panel.

    Attributes:
        method: Gives the line its colour and marker.
        points: Its places.
        level: Draws it flat, as a reference without an x of its own.
        label: What the legend says; "" for the method.
        dashed: Tells it from the method's other line.
        colour: Of its own; "" for the method's.
    """

    method: str
    points: tuple[Point, ...]
    level: Estimate | None = None
    label: str = ""
    dashed: bool = False
    colour: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """One task's curves over one axis.

    Attributes:
        title: Of the panel.
        xlabel: Of its axis.
        metric: What is drawn, by its name or in words.
        series: The curves.
        log: Whether the axis is logarithmic.
    """

    title: str
    xlabel: str
    metric: str
    series: tuple[Series, ...]
    log: bool = False


@dataclass(frozen=True, slots=True)
class Layout:
    """What stands on top of the document.

    Attributes:
        title: As the paper's caption names it.
        tables: By file name.
        panels: Curves, drawn side by side.
        notes: How to read it, and where the published numbers contradict each other.
    """

    title: str
    tables: Mapping[str, Table] = field(default_factory=dict)
    panels: tuple[Panel, ...] = ()
    notes: tuple[str, ...] = ()
