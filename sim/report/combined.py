"""One document from many runs: a table of the paper on top, one section per setting below.

Runs that differ in nothing but the seed are repetitions of one setting. Beside the document lie
its tables as LaTeX and CSV, its pictures, and one JSON-lines file with every number.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from conf.errors import RunError
from lamp import metrics
from sim.report import caveats, exercised, filter_tables, pictures, score_tables
from sim.report.charts import curves_figure, scores_figure
from sim.report.figure import Figure
from sim.report.layout import Layout
from sim.report.layouts import make_layout
from sim.report.page.page import Setting, render_comparison
from sim.report.pooling import Results, as_line, differing_keys, setting, summarise, value_of
from sim.report.run_records import Run
from sim.report.tables import (
    Cell,
    Table,
    difference_cell,
    estimate_cell,
    make_table,
    metric_head,
    plural,
    to_markdown,
    write_tables,
)
from sim.report.verdict import verdict
from storage import atomic
from strategy.methods import METHODS

Render = Callable[[str, dict[str, object]], str]
SCORES, DIFFERENCES = "All metrics", "Paired differences and power"
KEPT = "Augmentation and filters"
MOST_EFFECTS = 40  # pairs in the overview
MOST_SETTINGS = 8  # columns of the overview; with more, each section speaks for itself


@dataclass(frozen=True, slots=True)
class Document:
    """What was written.

    Attributes:
        results: One record per setting.
        titles: Its section's title.
        layout: The table of the paper on top, where the runs ask for one.
        curves: Its curves.
        tables: What stands above the sections, by caption.
        sections: One per setting.
    """

    results: tuple[Results, ...]
    titles: tuple[str, ...]
    layout: Layout | None
    curves: Figure | None
    tables: Mapping[str, Table]
    sections: tuple[Setting, ...]


def write(runs: Sequence[Run], out: Path, render: Render) -> Document:
    """Write the document ``out``, its tables, pictures and numbers.

    Args:
        runs: Any number of tasks, settings and seeds.
        out: Markdown file to write.
        render: Fills a template, see :func:`sim.report.report.render`.

    Raises:
        RunError: If there is no run, or a seed of one setting comes twice.
    """
    all_results = tuple(summarise(group) for group in group_runs(runs))
    titles = section_titles(all_results)
    layout = make_layout(_layout_name(runs), all_results)
    tables = {
        **(layout.tables if layout else {}),
        "overview": overview_table(all_results, titles),
        "effects": effects_table(all_results, titles),
    }
    write_tables(out.with_name(f"{out.stem}_tables"), tables)
    curves = curves_figure("curves", layout.title, layout.panels) if layout else None
    if curves is not None:
        pictures.save(curves.spec, out.with_name(f"{out.stem}_curves.png"))
    named = enumerate(zip(all_results, titles, strict=True))
    sections = tuple(_section(results, title, number) for number, (results, title) in named)
    both = zip(sections, all_results, strict=True)
    parts = [_in_markdown(section, results, out) for section, results in both]
    context = {
        **_context(all_results),
        "layout": layout,
        "layout_tables": [to_markdown(table) for table in layout.tables.values()] if layout else [],
        "curves": f"{out.stem}_curves.png" if curves is not None else "",
        "overview": to_markdown(tables["overview"]) if tables["overview"] else "",
        "effects": to_markdown(tables["effects"]) if tables["effects"] else "",
        "sections": parts,
        "tables": f"{out.stem}_tables",
    }
    atomic.write_text(out, render("combined.md", context))
    lines = [as_line(results, arm) for results in all_results for arm in results.arms]
    numbers = "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines)
    atomic.write_text(out.with_suffix(".jsonl"), numbers)
    shown = {
        **(_captioned(layout) if layout else {}),
        "Overview": tables["overview"],
        "Paired differences": tables["effects"],
    }
    above = {caption: table for caption, table in shown.items() if table is not None}
    return Document(all_results, tuple(titles), layout, curves, above, sections)


def _captioned(layout: Layout) -> dict[str, Table]:
    """The layout's tables by caption; where there are several each has its own name in it."""
    many = len(layout.tables) > 1
    return {
        f"{layout.title}, {name.replace('_', ' ')}" if many else layout.title: table
        for name, table in layout.tables.items()
    }


def comparison_page(document: Document) -> str:
    """The document as one HTML page, each setting with its verdict, warnings, chart and tables."""
    context = _context(document.results)
    return render_comparison(
        document.sections,
        title=str(context["title"]),
        facts=context["facts"],  # type: ignore[arg-type]
        level=str(context["level"]),
        tables=document.tables,
        notes=document.layout.notes if document.layout else (),
        curves=document.curves,
    )


def _section(results: Results, title: str, number: int) -> Setting:
    found, figure = verdict(results), scores_figure(results)
    tables = {
        SCORES: score_tables.scores_table(results),
        DIFFERENCES: score_tables.differences_table(results),
        KEPT: kept_over_seeds(results),
    }
    return Setting(
        title,
        found.effects or (found.headline,),
        [*caveats.warnings(results), *filter(None, [found.lacking])],
        replace(figure, name=f"scores-{number}") if figure else None,
        {caption: table for caption, table in tables.items() if table is not None},
        ", ".join(f"{each.folder.name} (seed {each.config.seed})" for each in results.runs),
    )


def _in_markdown(section: Setting, results: Results, out: Path) -> dict[str, Any]:
    """What the template of the document takes of a section; its picture is saved."""
    picture = out.with_name(f"{out.stem}_{results.runs[0].folder.name}.png")
    if section.figure is not None:
        pictures.save(section.figure.spec, picture)
    names = {"scores": SCORES, "differences": DIFFERENCES, "kept": KEPT}
    found = {name: section.tables.get(caption) for name, caption in names.items()}
    return {
        **{name: to_markdown(table) if table else "" for name, table in found.items()},
        "title": section.title,
        "warnings": section.warnings,
        "power": score_tables.power_notes(results),
        "picture": picture.name if section.figure is not None else "",
        "runs": section.runs,
    }


def group_runs(runs: Sequence[Run]) -> list[list[Run]]:
    """Group the runs of one setting, in the order of tasks, data sets and models."""
    if not runs:
        raise RunError("runs: expected at least one run folder, got none")
    groups: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda each: (each.task.name, each.world, each.config.model.name)):
        groups.setdefault(json.dumps(setting(run), sort_keys=True), []).append(run)
    return list(groups.values())


def section_titles(all_results: Sequence[Results]) -> list[str]:
    """Task and data of each setting, and what parts it from others of the same task and data."""
    plain = [f"{each.task.title}, {each.runs[0].world}" for each in all_results]
    titles = []
    for results, title in zip(all_results, plain, strict=True):
        rivals = [
            other.runs[0]
            for other, theirs in zip(all_results, plain, strict=True)
            if theirs == title and other is not results
        ]
        keys = dict.fromkeys(
            key for rival in rivals for key in differing_keys(results.runs[0], rival)
        )
        own = ", ".join(f"{key} {value_of(results.runs[0], key)}" for key in keys)
        titles.append(f"{title}, {own}" if own else title)
    return titles


def _layout_name(runs: Sequence[Run]) -> str:
    names = {run.config.layout for run in runs}
    return names.pop() if len(names) == 1 else "plain"


def _context(all_results: Sequence[Results]) -> dict[str, object]:
    runs = [run for results in all_results for run in results.runs]
    worlds = _joined(run.world for run in runs)
    users, seeds = (_joined(values) for values in (_users(runs), _seeds(runs)))
    commits = _joined(str(run.manifest["commit"]) for run in runs if run.manifest.get("commit"))
    tasks = plural(len({results.task.name for results in all_results}), "task")
    found = [f"{users} target users", f"seeds {seeds}", f"models {_models(runs)}"]
    return {
        "title": f"Results on {tasks}, {worlds}",
        "facts": [*found, f"commit {commits}"] if commits else found,
        "level": all_results[0].resampling.level,
    }


def _users(runs: Sequence[Run]) -> list[str]:
    return [str(run.config.users) for run in runs]


def _seeds(runs: Sequence[Run]) -> list[str]:
    return [str(seed) for seed in sorted({run.config.seed for run in runs})]


def _models(runs: Sequence[Run]) -> str:
    return _joined(run.config.model.name for run in runs)


def _joined(values: Any) -> str:
    return ", ".join(dict.fromkeys(values))


def kept_over_seeds(results: Results) -> Table | None:
    """The filters' table of every seed, one below the other."""
    tables = [(run.config.seed, filter_tables.kept_table(run)) for run in results.runs]
    found = [(seed, table) for seed, table in tables if table is not None]
    if not found:
        return None
    heads = [table.head for _, table in found]
    columns = tuple(dict.fromkeys(name for head in heads for name in head))
    rows = []
    for seed, table in found:
        for row in table.rows:
            cells = dict(zip(table.head, row, strict=True))
            rows.append([Cell(str(seed)), *(cells.get(name, Cell("")) for name in columns)])
    return make_table(("Seed", *columns), rows, left=2)


def overview_table(all_results: Sequence[Results], titles: Sequence[str]) -> Table | None:
    """Methods down, settings across, the headline metric in the cells; None for too many."""
    if len(all_results) > MOST_SETTINGS:
        return None
    names = dict.fromkeys(arm.arm.name for results in all_results for arm in results.arms)
    rows: list[list[Cell | str]] = [
        [name, *(_headline_cell(results, name) for results in all_results)] for name in names
    ]
    return make_table(("Method", *_heads(all_results, titles)), rows)


def _headline_cell(results: Results, name: str) -> Cell:
    arm = results.arm(name)
    if arm is None:
        return Cell("")
    return estimate_cell(arm.metrics.get(metrics.headline(results.task)[0]))


def effects_table(all_results: Sequence[Results], titles: Sequence[str]) -> Table | None:
    """Paired differences down, settings across; methods with synthetic pairs come first."""
    pairs = {
        (result.arm.name, reference.arm.name): result.arm.method
        for results in all_results
        for result, reference in score_tables.compared_pairs(results)
    }
    ordered = sorted(pairs, key=lambda pair: not _augmented(pairs[pair]))
    if len(all_results) > MOST_SETTINGS:
        return None
    rows: list[list[Cell | str]] = [
        [f"{name} minus {other}", *(_effect(results, name, other) for results in all_results)]
        for name, other in ordered[:MOST_EFFECTS]
    ]
    return make_table(("Difference", *_heads(all_results, titles)), rows) if rows else None


def _augmented(method: str) -> bool:
    return method in METHODS and METHODS[method].downloads


def _effect(results: Results, name: str, other: str) -> Cell:
    metric, arm = metrics.headline(results.task)[0], results.arm(name)
    if arm is not None and not arm.exercised:
        return Cell(exercised.LABEL)
    found = arm.differences.get(other, {}).get(metric) if arm else None
    return difference_cell(metric, found) if found else Cell("")


def _heads(all_results: Sequence[Results], titles: Sequence[str]) -> list[str]:
    """Task and metric, and what parts a setting from others of its task."""
    heads = []
    for results, title in zip(all_results, titles, strict=True):
        plain = f"{results.task.title}, {results.runs[0].world}"
        label = results.task.official.replace("_", "-") + title.removeprefix(plain)
        heads.append(f"{label} {metric_head(metrics.headline(results.task)[0])}")
    return heads
