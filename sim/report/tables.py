"""Tables as records: the same cells become Markdown, LaTeX, CSV and a terminal table.

A cell holds finished text; its tone says whether a difference is resolved for better or worse,
which Markdown shows in bold and the terminal in bold and colour (never by colour alone).
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as RichTable
from rich.text import Text

from sim.statistics import Difference, Estimate
from storage import atomic
from storage.text_files import printable

Tone = Literal["plain", "better", "worse"]
NOT_AVAILABLE = "n/a"
STYLES: dict[Tone, str] = {"plain": "", "better": "bold green", "worse": "bold red"}
METRIC_TITLES = {
    "accuracy": "Accuracy",
    "f1": "Macro-F1",
    "mae": "MAE",
    "rmse": "RMSE",
    "rouge1": "ROUGE-1",
    "rougeL": "ROUGE-L",
    "bertscore": "BERTScore",
    "parse_failure_rate": "Unparsed",
    "lamp_compat_rouge1": "ROUGE-1, LaMP's median",
    "lamp_compat_rougeL": "ROUGE-L, LaMP's median",
    "user_mean_accuracy": "Accuracy, mean of users",
    "user_mean_mae": "MAE, mean of users",
    "user_mean_rouge1": "ROUGE-1, mean of users",
    "unicode_rouge1": "ROUGE-1, Unicode tokens",
}
LOWER_IS_BETTER = frozenset({"mae", "rmse", "user_mean_mae", "parse_failure_rate"})
ABSENT = "-"  # nothing there and nothing missing
MOST_COLUMNS = 1000  # wider than any table
# What Markdown would read as more than a character; "_" within a word and "[a]" alone are none.
_MEANT = re.compile(r"[\\|`*~$]|(?<!\w)_|_(?!\w)|(?<=\])[(\[:]|!(?=\[)")
_HTML = re.compile(r"&(?=#?\w+;)")
LATEX = {
    "\\": r"\textbackslash{}",
    **{char: f"\\{char}" for char in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "±": r"$\pm$",
    "<": "$<$",
    ">": "$>$",
}
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell: first line, an optional second part (the interval), and its tone."""

    text: str
    detail: str = ""
    tone: Tone = "plain"


@dataclass(frozen=True, slots=True)
class Table:
    """A table of finished cells.

    Attributes:
        head: Column titles.
        rows: Rows as long as the head.
        left: How many leading columns hold words and are aligned to the left.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    left: int = 1


def make_table(head: Sequence[str], rows: Sequence[Sequence[Cell | str]], left: int = 1) -> Table:
    """Build a table; plain strings become plain cells."""
    cells = (tuple(cell if isinstance(cell, Cell) else Cell(cell) for cell in row) for row in rows)
    return Table(tuple(head), tuple(cells), left)


def to_markdown(table: Table) -> str:
    """Write a table as Markdown, without a final line break."""
    rule = ["---" if place < table.left else "---:" for place in range(len(table.head))]
    lines = [[markdown_text(title) for title in table.head], rule]
    lines += [[_markdown_cell(cell) for cell in row] for row in table.rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def to_csv(table: Table) -> str:
    """Write a table as CSV: texts as they are shown, what stands in brackets in its own columns."""
    detailed = [any(row[place].detail for row in table.rows) for place in range(len(table.head))]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(
        title
        for head, wide in zip(table.head, detailed, strict=True)
        for title in ([_line(head), f"{_line(head)} interval"] if wide else [_line(head)])
    )
    for row in table.rows:
        writer.writerow(
            text
            for cell, wide in zip(row, detailed, strict=True)
            for text in ([cell.text, cell.detail] if wide else [cell.text])
        )
    return buffer.getvalue()


def to_latex(table: Table) -> str:
    """Write a table as a LaTeX tabular with booktabs rules."""
    columns = "".join("l" if place < table.left else "r" for place in range(len(table.head)))
    lines = [
        f"\\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        _latex_row([_latex(_line(title)) for title in table.head]),
        r"\midrule",
        *(_latex_row([_latex_cell(cell) for cell in row]) for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def write_tables(folder: Path, tables: Mapping[str, Table | None]) -> None:
    """Write each table as Markdown, LaTeX and CSV into ``folder``."""
    for name, table in tables.items():
        if table is not None:
            atomic.write_text(folder / f"{name}.md", to_markdown(table) + "\n")
            atomic.write_text(folder / f"{name}.tex", to_latex(table))
            atomic.write_text(folder / f"{name}.csv", to_csv(table))


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _latex_cell(cell: Cell) -> str:
    text = _latex(cell.text)
    if cell.tone != "plain":
        text = rf"\textbf{{{text}}}"
    return f"{text} {_latex(cell.detail)}" if cell.detail else text


def _latex(text: str) -> str:
    return "".join(LATEX.get(char, char) for char in text)


def _line(text: str) -> str:
    return " ".join(text.split())


def fitting(table: Table, console: Console) -> Iterator[RichTable]:
    """Cut a table between columns into parts that fit the terminal; each repeats the words.

    A row without anything in a part is left out there.
    """
    start, last = table.left, len(table.head)
    while start < last:
        stop = last
        while (
            stop > start + 1 and natural_width(_part(table, start, stop), console) > console.width
        ):
            stop -= 1
        yield _part(table, start, stop)
        start = stop


def _part(table: Table, start: int, stop: int) -> RichTable:
    places = [*range(table.left), *range(start, stop)]
    rows = tuple(
        tuple(row[place] for place in places)
        for row in table.rows
        if any(row[place].text != ABSENT for place in range(start, stop))
    )
    part = Table(tuple(table.head[place] for place in places), rows, table.left)
    return to_rich(part, stacked=True)


def natural_width(table: RichTable, console: Console) -> int:
    """Width of a table that nothing squeezes."""
    roomy = console.options.update(max_width=MOST_COLUMNS)
    return Measurement.get(console, roomy, table).maximum


def to_rich(table: Table, *, stacked: bool) -> RichTable:
    """Make a terminal table.

    Args:
        table: What to show.
        stacked: Put each interval below its value, for narrow terminals.
    """
    shown = RichTable(box=None, pad_edge=False, header_style="bold")
    for place, title in enumerate(table.head):
        shown.add_column(
            title.replace(" vs ", "\nvs "),
            justify="left" if place < table.left else "right",
            overflow="fold",
        )
    for row in table.rows:
        shown.add_row(*(_rich_cell(cell, "\n" if stacked else " ") for cell in row))
    return shown


def _markdown_cell(cell: Cell) -> str:
    text = markdown_text(cell.text)
    if cell.tone != "plain":
        text = f"**{text}**"
    return f"{text} {markdown_text(cell.detail)}" if cell.detail else text


def _rich_cell(cell: Cell, gap: str) -> Text:
    text = Text(cell.text, style=STYLES[cell.tone])
    return text.append(gap + cell.detail, style="not bold dim") if cell.detail else text


def markdown_text(text: str) -> str:
    """Return ``text`` on one line so that Markdown shows it as it is: no markup, math or HTML.

    Of underscores and brackets only those that could mean something are escaped.
    """
    line = printable(" ".join(text.split()))
    return _HTML.sub(r"&amp;", _MEANT.sub(r"\\\g<0>", line)).replace("<", "&lt;")


def metric_title(name: str) -> str:
    """Title of a metric as in papers."""
    return METRIC_TITLES.get(name, name)


def metric_head(name: str) -> str:
    """Title of a metric with an arrow that points to better."""
    return f"{metric_title(name)} {arrow(name)}"


def arrow(name: str) -> str:
    """Where better is."""
    return "↓" if name in LOWER_IS_BETTER else "↑"


def estimate_cell(estimate: Estimate | None) -> Cell:
    """Show value, interval and, for several seeds, the standard deviation over them."""
    if estimate is None:
        return Cell(NOT_AVAILABLE)
    spread = estimate.spread
    detail = _interval(estimate, number)
    return Cell(
        number(estimate.value), detail if spread is None else f"{detail} ±{number(spread)}".strip()
    )


def difference_cell(name: str, difference: Difference | None) -> Cell:
    """Show a paired difference, in the tone of what the interval resolves."""
    if difference is None:
        return Cell(NOT_AVAILABLE)
    return Cell(signed(difference.value), _interval(difference, signed), tone(name, difference))


def tone(name: str, difference: Difference, level: float = 0.05) -> Tone:
    """Tell better from worse where a primary contrast holds: interval and adjusted test agree.

    An exploratory comparison is plain whatever its interval.
    """
    if difference.adjusted_p is None or difference.adjusted_p >= level:
        return "plain"
    if difference.low is None or difference.high is None:
        return "plain"
    if difference.low <= 0 <= difference.high:
        return "plain"
    return "better" if (difference.value < 0) == (name in LOWER_IS_BETTER) else "worse"


def _interval(estimate: Estimate, write: Callable[[float], str]) -> str:
    if estimate.low is None or estimate.high is None:
        return ""
    return f"[{write(estimate.low)}, {write(estimate.high)}]"


def number(value: float | None) -> str:
    """Three decimals; powers of ten for what is too large to read that way."""
    if value is None:
        return NOT_AVAILABLE
    if abs(value) >= 1e6:
        return f"{value:.3g}"
    text = f"{value:.3f}"
    return "0.000" if text == "-0.000" else text


def short(value: float) -> str:
    """Three decimals without the zero in front, as the paper's tables have them: .520, 1.120."""
    text = number(value)
    return text[1:] if text.startswith("0.") else text


def signed(value: float | None) -> str:
    """Like :func:`number`, with a sign except for zero."""
    text = number(value)
    return f"+{text}" if value is not None and value > 0 and text != "0.000" else text


def percent(part: float, whole: float) -> str:
    """Write ``part / whole`` as a percentage."""
    return f"{100 * part / whole:.1f}%" if whole else NOT_AVAILABLE


def count(value: float) -> str:
    """Write a whole number in groups of three: 12,345."""
    return f"{round(value):,}"


def plural(number_of: int, noun: str) -> str:
    """Write "1 user", "2 users"."""
    return f"{count(number_of)} {noun}" if number_of == 1 else f"{count(number_of)} {noun}s"


def many(value: int, most: int) -> str:
    """A whole number up to ``most``, beyond it only "over ..."."""
    return f"over {count(most)}" if value > most else count(value)


def probability(value: float | None) -> str:
    """A p value: three decimals, never a zero."""
    return "<0.001" if value is not None and value < 0.001 else number(value)


def size(num_bytes: float) -> str:
    """Write bytes in binary units: 1.5 MiB."""
    value, place = float(num_bytes), 0
    while value >= 1024 and place < len(UNITS) - 1:
        value, place = value / 1024, place + 1
    return f"{value:.0f} {UNITS[place]}" if not place else f"{value:.1f} {UNITS[place]}"


def duration(seconds: float) -> str:
    """Write seconds as 8.3 s or 12 min 05 s."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"
