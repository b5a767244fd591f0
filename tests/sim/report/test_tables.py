"""Cells and numbers as a reader sees them."""

from __future__ import annotations

import pytest

from sim.report import tables
from sim.report.tables import Cell, make_table, to_markdown
from sim.statistics import Difference, Estimate


def difference(
    value: float, low: float | None, high: float | None, adjusted_p: float | None = 0.01
) -> Difference:
    return Difference(value, low, high, (value,), 0.01, 0.02, 20, 20, 200, adjusted_p)


@pytest.mark.parametrize(
    ("name", "low", "high", "expected"),
    [
        ("rouge1", 0.01, 0.03, "better"),
        ("rouge1", -0.03, -0.01, "worse"),
        ("mae", -0.03, -0.01, "better"),
        ("mae", 0.01, 0.03, "worse"),
        ("rouge1", -0.01, 0.03, "plain"),
        ("rouge1", 0.0, 0.03, "plain"),
        ("rouge1", None, None, "plain"),
    ],
)
def test_tone_tells_better_from_worse_only_where_zero_is_left_out(name, low, high, expected):
    value = 0.02 if low is None else (low + high) / 2
    assert tables.tone(name, difference(value, low, high)) == expected


@pytest.mark.parametrize("adjusted_p", [None, 0.05, 0.3])
def test_what_is_exploratory_or_fails_its_test_has_no_tone(adjusted_p):
    assert tables.tone("rouge1", difference(0.02, 0.01, 0.03, adjusted_p)) == "plain"


def test_markdown_keeps_hostile_cells_in_their_cell():
    table = make_table(("User | id", "Reason"), [["a|b\nc", Cell("+0.1", "[0, 1]", "better")]])
    assert to_markdown(table).splitlines() == [
        "| User \\| id | Reason |",
        "| --- | ---: |",
        "| a\\|b c | **+0.1** [0, 1] |",
    ]


@pytest.mark.parametrize(
    ("write", "value", "expected"),
    [
        (tables.number, -0.0001, "0.000"),
        (tables.number, 5e199, "5e+199"),
        (tables.number, None, "n/a"),
        (tables.signed, 0.0004, "0.000"),
        (tables.signed, 0.041, "+0.041"),
        (tables.probability, 0.0005, "<0.001"),
        (tables.size, 1023, "1023 B"),
        (tables.size, 1536, "1.5 KiB"),
        (tables.duration, 125.4, "2 min 05 s"),
        (tables.count, 12345, "12,345"),
    ],
)
def test_numbers_are_written_for_reading(write, value, expected):
    assert write(value) == expected


def test_estimate_shows_interval_and_spread_over_seeds():
    cell = tables.estimate_cell(Estimate(0.5, 0.4, 0.6, (0.4, 0.6)))
    assert (cell.text, cell.detail) == ("0.500", "[0.400, 0.600] ±0.141")
    assert tables.estimate_cell(Estimate(0.5, None, None, (0.5,))).detail == ""


TABLE = make_table(
    ("Method\nname", "Score ↑"), [["a_b & c", Cell("+0.1", "[0, 1]", "better")], ["d", "50%"]]
)


def test_csv_has_intervals_in_a_column_of_their_own():
    assert tables.to_csv(TABLE).splitlines() == [
        "Method name,Score ↑,Score ↑ interval",
        'a_b & c,+0.1,"[0, 1]"',
        "d,50%,",
    ]


def test_latex_escapes_what_latex_reads():
    assert tables.to_latex(TABLE).splitlines() == [
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"Method name & Score $\uparrow$ \\",
        r"\midrule",
        r"a\_b \& c & \textbf{+0.1} [0, 1] \\",
        r"d & 50\% \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_short_numbers_lose_the_zero_in_front():
    assert [tables.short(value) for value in (0.52, 1.12, -0.25, 0.0)] == [
        ".520",
        "1.120",
        "-0.250",
        ".000",
    ]
