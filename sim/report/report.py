"""The report of a run: results.jsonl, users.csv, pictures, report.md and the table in the terminal.

Everything is made from the run folder's files, so ``python -m sim report run=<folder or name>``
makes it again without training. ``runs=[a,b,...]`` puts several seeds and tasks into one document
(:mod:`sim.report.combined`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import jinja2
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from sim.report import (
    caveats,
    combined,
    device_tables,
    filter_tables,
    pictures,
    run_tables,
    score_tables,
    sharing,
)
from sim.report import leakage_tables as leakage
from sim.report.cases import case_page
from sim.report.charts import figures
from sim.report.figure import Figure
from sim.report.filter_tables import NOT_ASKED
from sim.report.frames import users_frame
from sim.report.layout import Layout
from sim.report.layouts import make_layout
from sim.report.page.page import PAGE, render_page
from sim.report.pooling import Results, seed_label, summarise, write_results
from sim.report.run_records import Run, read_run
from sim.report.tables import (
    Table,
    fitting,
    markdown_text,
    natural_width,
    plural,
    to_markdown,
    to_rich,
    write_tables,
)
from sim.report.verdict import verdict
from storage import atomic

TEMPLATES = Path(__file__).resolve().parent / "templates"
REPORT = "report.md"
CASES = "cases.md"
TABLES = "tables"
TITLES = {
    "scores": "All metrics",
    "differences": "Paired differences and power",
    "outside": "Not in LaMP",
    "kept": "Augmentation and filters",
    "rejections": "Why candidates were rejected",
    "sharing": "What sharing brings, by group",
    "exposure": "Leakage: exposure of canaries",
    "membership": "Leakage: membership inference",
    "power": "Leakage: true positives at a low false-positive rate",
    "who_wrote": "Leakage: groups and links",
    "writers": "Who wrote what was kept",
    "diagnosis": "Synthetic data under the lens",
    "loss_gaps": "Loss on own records and on queries",
    "efficiency": "What it takes",
    "statistics": "As in the paper's Table 4",
    "parsing": "Answers that could not be read",
    "inferiority": "Against the cloud model",
    "training": "Training on the devices",
    "shortened": "Texts that were too long",
    "reductions": "Training that ran out of memory",
    "devices": "Kinds of devices",
    "wire": "Over the wire",
    "failures": "Failures by user",
    "data": "Data",
    "models": "Models",
    "time": "Time",
}
Tables = dict[str, Table | None]  # by name; None where there is nothing to show
SHOWN_FAILURES = 5  # in the terminal; the report has all


def write_combined(folders: Sequence[Path], out: Path, console: Console) -> None:
    """Write one document about several runs and print its tables.

    Raises:
        RunError: If a folder is no run, or there is none.
    """
    document = combined.write([read_run(folder) for folder in folders], out, render)
    show_document(document, console)
    page, layout = out.with_suffix(".html"), document.layout
    if len(document.results) == 1:  # seeds of one setting: one page over all of them
        (results,) = document.results
        drawn = figures(results, layout)
        atomic.write_text(page, _page(results, report_tables(results), drawn, layout))
    else:
        atomic.write_text(page, combined.comparison_page(document))
    console.print(f"Page     {page}", soft_wrap=True)
    console.print(f"Report   {out}", soft_wrap=True)


def write_report(folders: Sequence[Path]) -> tuple[Results, ...]:
    """Make everything that each run shows: results.jsonl, users.csv, pictures, report.md.

    Raises:
        RunError: If a folder is no run, or a file in it was damaged.
    """
    return tuple(_write_one(folder) for folder in folders)


def _write_one(folder: Path) -> Results:
    run = read_run(folder)
    results = summarise([run])
    write_results(results)
    users = users_frame(run).to_csv(index=False, lineterminator="\n")
    atomic.write_text(folder / "users.csv", users)
    layout = make_layout(run.config.layout, (results,))
    drawn = figures(results, layout)
    for figure in drawn:
        pictures.save(figure.spec, folder / "plots" / f"{figure.name}.png")
    if page := case_page(run, title(run)):
        atomic.write_text(folder / CASES, page)
    tables = report_tables(results)
    text = render_report(results, tables, [figure.name for figure in drawn], layout)
    atomic.write_text(folder / REPORT, text)
    atomic.write_text(folder / PAGE, _page(results, tables, drawn, layout))
    write_tables(folder / TABLES, {**tables, **(layout.tables if layout else {})})
    return results


def _page(results: Results, tables: Tables, drawn: Sequence[Figure], layout: Layout | None) -> str:
    run = results.runs[0]
    named = layout.tables if layout else {}
    shown = {name: (TITLES[name], table) for name, table in tables.items() if table is not None}
    return render_page(
        results,
        title=title(run),
        facts=facts(results.runs),
        warnings=caveats.warnings(results),
        headline=_headline(results),
        drawn=drawn,
        tables={name: (layout.title, table) for name, table in named.items() if layout} | shown,
    )


def _headline(results: Results) -> Table:
    """The scores without what fits no first screen; the whole table stands below."""
    _, table, _ = score_tables.narrower_tables(results)
    return table


def report_tables(results: Results) -> Tables:
    """Every table of a run's report by its name; None where there is nothing to show."""
    run = results.runs[0]
    return {
        "scores": score_tables.scores_table(results),
        "differences": score_tables.differences_table(results),
        "outside": score_tables.outside_lamp_table(results),
        "kept": filter_tables.kept_table(run),
        "rejections": filter_tables.rejections_table(run),
        "sharing": sharing.sharing_table(results),
        **leakage.tables(results),
        "writers": filter_tables.writers_table(run),
        "diagnosis": filter_tables.diagnosis_table(run),
        "loss_gaps": run_tables.loss_gap_table(run),
        "efficiency": run_tables.efficiency_table(run),
        "statistics": run_tables.statistics_table([run]),
        "parsing": score_tables.parsing_table(results),
        "inferiority": score_tables.inferiority_table(results),
        "training": run_tables.training_table(run),
        "shortened": run_tables.shortened_table(run),
        "reductions": run_tables.reductions_table(run),
        "devices": device_tables.devices_table(run),
        "wire": run_tables.wire_table(run),
        "failures": run_tables.failures_table(run),
        "data": run_tables.data_table(run),
        "models": run_tables.models_table(run),
        "time": run_tables.time_table(run),
    }


def render_report(
    results: Results, tables: Tables, pictures: Sequence[str], layout: Layout | None = None
) -> str:
    """Fill the template of one run.

    Args:
        results: The run's results.
        tables: Of :func:`report_tables`.
        pictures: Names of those that were drawn.
        layout: The table of the paper on top, where the run asks for one.
    """
    run = results.runs[0]
    return render(
        "report.md",
        {
            "layout": layout,
            "layout_tables": [to_markdown(table) for table in layout.tables.values()]
            if layout
            else [],
            **{name: markdown(table) for name, table in tables.items()},
            "title": markdown_text(title(run)),
            "facts": [markdown_text(fact) for fact in facts(results.runs)],
            "verdict": verdict(results),
            "warnings": caveats.warnings(results),
            "not_exercised": not all(arm.exercised for arm in results.arms),
            "power": score_tables.power_notes(results),
            "leaks": leakage.sentences(results),
            "leakage_notes": leakage.notes(results),
            "redactions": sharing.redactions_note(run),
            "notes": [markdown_text(note) for note in run_tables.data_notes(run)],
            "judge": run_tables.judge_sentence(run),
            "cut_pairs": run_tables.cut_pairs(run),
            "level": results.resampling.level,
            "resamples": f"{results.resampling.resamples:,}",
            "permutations": f"{run.config.permutations:,}",
            "contrasts": ", ".join(run.config.contrasts) or "none",
            "pictures": tuple(pictures),
            "cases": (run.folder / CASES).is_file(),
            "run": run,
        },
    )


def title(run: Run) -> str:
    """Title of a report: the task, and plainly where the data come from."""
    return f"{run.task.title}, {run.world}"


def facts(runs: Sequence[Run]) -> list[str]:
    """What one must know to make the table again; several runs are seeds of one setting."""
    config, many = runs[0].config, "s" if len(runs) > 1 else ""
    found = [
        f"run{many} {', '.join(run.folder.name for run in runs)}",
        plural(config.users, "target user"),
        f"privacy {config.privacy.kind}",
        f"models {config.model.name}",
        f"seed{many} {', '.join(seed_label(run, runs) for run in runs)}",
    ]
    commits = dict.fromkeys(str(run.manifest["commit"]) for run in runs if "commit" in run.manifest)
    if many:
        found.append(f"users, filters, wire, training and time are those of seed {config.seed}")
    return [*found, *(f"commit {commit}" for commit in commits)]


def markdown(table: Table | None) -> str:
    """A table as Markdown; empty where there is none."""
    return "" if table is None else to_markdown(table)


def render(template: str, context: dict[str, object]) -> str:
    """Fill one of the templates."""
    return _environment().get_template(template).render(context)


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown; cells are escaped in sim.report.tables
    )


def show(results: Results, console: Console) -> None:
    """Print the table, what to beware of, and where everything lies."""
    run = results.runs[0]
    users = plural(run.config.users, "user")
    console.print(Text.assemble("\n", (title(run), "bold"), f", {users}"))
    layout = make_layout(run.config.layout, (results,))
    if layout is None:
        _print_scores(results, console)
    else:
        _print_layout(layout, console)
    judged = verdict(results)
    for sentence in judged.effects or (judged.headline,):
        console.print(Text.assemble(("Verdict  ", "bold"), sentence))
    for line in _kept_lines(run):
        console.print(line)
    if run.augmentations:
        console.print(run_tables.judge_sentence(run))
    for warning in caveats.warnings(results):
        console.print(Text.assemble(("!", "bold yellow"), f" {warning}"))
    for failure in run.failures[:SHOWN_FAILURES]:
        place = f"user {failure.user}, {failure.arm or 'all arms'}, {failure.phase}"
        console.print(Text.assemble(("failed", "bold red"), f" {place}: {failure.reason}"))
    if (more := len(run.failures) - SHOWN_FAILURES) > 0:
        console.print(Text.assemble(("failed", "bold red"), f" and {more} more, see the report"))
    console.print(f"Page     {run.folder / PAGE}", soft_wrap=True)
    console.print(f"Report   {run.folder / REPORT}", soft_wrap=True)
    console.print(f"Pictures {run.folder / 'plots'}", soft_wrap=True)


def show_document(document: combined.Document, console: Console) -> None:
    """Print the table of the paper, or one table per setting where none was asked for."""
    if document.layout is not None:
        _show_layout(document, document.layout, console)
        return
    for results, heading in zip(document.results, document.titles, strict=True):
        seeds = ", ".join(str(run.config.seed) for run in results.runs)
        console.print(Text.assemble("\n", (heading, "bold"), f", seeds {seeds}"))
        _print_scores(results, console)


def _show_layout(document: combined.Document, layout: Layout, console: Console) -> None:
    worlds = ", ".join(dict.fromkeys(results.runs[0].world for results in document.results))
    console.print(Text(f"\n{layout.title}, {worlds}", style="bold"))
    _print_layout(layout, console)


def _print_layout(layout: Layout, console: Console) -> None:
    for table in layout.tables.values():
        for part in fitting(table, console):
            console.print(part)
            console.print()
    for note in layout.notes:
        console.print(note)


def _print_scores(results: Results, console: Console) -> None:
    console.print(_fitting(results, console))
    console.print(
        Text(
            f"[low, high]: {results.resampling.level} interval over users; "
            "differences are paired, bold where a declared contrast holds",
            style="dim",
        )
    )


def _fitting(results: Results, console: Console) -> RichTable:
    """The richest table that fits; failing all, the leanest, which then folds."""
    shown = to_rich(score_tables.scores_table(results), stacked=False)
    for table in score_tables.narrower_tables(results):
        if natural_width(shown, console) <= console.width:
            break
        shown = to_rich(table, stacked=True)
    return shown


def _kept_lines(run: Run) -> list[str]:
    table = filter_tables.kept_table(run)
    if table is None:
        return []
    lines = []
    for row in table.rows:
        cells = dict(zip(table.head, (cell.text for cell in row), strict=True))
        passed = ", ".join(
            f"{name.removeprefix('Pass ')} {value}"
            for name, value in cells.items()
            if value != NOT_ASKED and (name == "Readable" or name.startswith("Pass "))
        )
        lines.append(
            f"{cells['Method']}: kept {cells['Kept']} of {cells['Generated']} candidates "
            f"({cells['Kept share']}); pass: {passed}"
        )
    return lines
