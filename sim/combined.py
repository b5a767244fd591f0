"""One document from many runs: one section per task, each over its seeds.

Runs of one task, data set and model are repetitions of one setting; :func:`sim.results.summarise`
refuses them when more than the seed differs. Beside the document lie a picture per section and one
JSON-lines file with every number.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from conf.errors import RunError
from lamp import metrics
from sim import cautions, filter_tables, plots, score_tables
from sim.results import Results, as_line, summarise
from sim.run_records import Run
from sim.tables import (
    Cell,
    Table,
    difference_cell,
    estimate_cell,
    make_table,
    metric_head,
    to_markdown,
)
from storage import atomic

Render = Callable[[str, dict[str, object]], str]
MOST_EFFECTS = 12  # pairs in the overview


def write(runs: Sequence[Run], out: Path, render: Render) -> tuple[Results, ...]:
    """Write the document ``out``, its pictures and its numbers.

    Args:
        runs: Any number of tasks and seeds.
        out: Markdown file to write.
        render: Fills a template, see :func:`sim.report.render`.

    Raises:
        RunError: If there is no run, or runs of one task are no repetitions of one setting.
    """
    groups = group_runs(runs)
    all_results = tuple(summarise(group) for group in groups)
    parts = [_section(results, out) for results in all_results]
    atomic.write_text(out, render("combined.md", _context(all_results, parts)))
    lines = [as_line(results, arm) for results in all_results for arm in results.arms]
    numbers = "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines)
    atomic.write_text(out.with_suffix(".jsonl"), numbers)
    return all_results


def group_runs(runs: Sequence[Run]) -> list[list[Run]]:
    """Group runs by task, data set and model, sorted in that order."""
    if not runs:
        raise RunError("runs: expected at least one run folder, got none")
    groups: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        key = (run.task.name, run.world, run.config.model.name)
        groups.setdefault(key, []).append(run)
    return [groups[key] for key in sorted(groups)]


def _context(
    all_results: Sequence[Results], parts: Sequence[Mapping[str, Any]]
) -> dict[str, object]:
    runs = [run for results in all_results for run in results.runs]
    worlds = _joined(run.world for run in runs)
    users, seeds = (_joined(values) for values in (_users(runs), _seeds(runs)))
    commits = _joined(str(run.manifest["commit"]) for run in runs if run.manifest.get("commit"))
    tasks = "1 task" if len(all_results) == 1 else f"{len(all_results)} tasks"
    found = [f"{users} target users", f"seeds {seeds}", f"models {_models(runs)}"]
    effects = effects_table(all_results)
    return {
        "title": f"Results on {tasks}, {worlds}",
        "facts": [*found, f"commit {commits}"] if commits else found,
        "level": all_results[0].resampling.level,
        "overview": to_markdown(overview_table(all_results)),
        "effects": to_markdown(effects) if effects else "",
        "sections": parts,
    }


def _users(runs: Sequence[Run]) -> list[str]:
    return [str(run.config.users) for run in runs]


def _seeds(runs: Sequence[Run]) -> list[str]:
    return [str(seed) for seed in sorted({run.config.seed for run in runs})]


def _models(runs: Sequence[Run]) -> str:
    return _joined(run.config.model.name for run in runs)


def _joined(values: Any) -> str:
    return ", ".join(dict.fromkeys(values))


def _section(results: Results, out: Path) -> dict[str, Any]:
    run = results.runs[0]
    figure = plots.scores_figure(results)
    picture = out.with_name(f"{out.stem}_{run.task.name}_{_slug(run.world)}.png")
    if figure is not None:
        plots.save(figure, picture)
    tables = {
        "scores": score_tables.scores_table(results),
        "differences": score_tables.differences_table(results),
        "kept": kept_over_seeds(results),
    }
    return {
        **{name: to_markdown(table) if table else "" for name, table in tables.items()},
        "title": f"{run.task.title}, {run.world}",
        "warnings": cautions.warnings(results),
        "power": score_tables.power_notes(results),
        "picture": picture.name if figure is not None else "",
        "runs": ", ".join(f"{each.folder.name} (seed {each.config.seed})" for each in results.runs),
    }


def _slug(text: str) -> str:
    return "".join(char if char.isalnum() else "_" for char in text)


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


def overview_table(all_results: Sequence[Results]) -> Table:
    """Methods down, tasks across, the headline metric in the cells."""
    names = dict.fromkeys(arm.arm.name for results in all_results for arm in results.arms)
    rows: list[list[Cell | str]] = [
        [name, *(_headline_cell(results, name) for results in all_results)] for name in names
    ]
    return make_table(("Method", *map(_task_head, all_results)), rows)


def _headline_cell(results: Results, name: str) -> Cell:
    arm = results.arm(name)
    if arm is None:
        return Cell("")
    return estimate_cell(arm.metrics.get(metrics.headline(results.task)[0]))


def effects_table(all_results: Sequence[Results]) -> Table | None:
    """Paired differences down, tasks across."""
    pairs = dict.fromkeys(
        (result.arm.name, reference.arm.name)
        for results in all_results
        for result, reference in score_tables.compared_pairs(results)
    )
    rows: list[list[Cell | str]] = [
        [f"{name} minus {other}", *(_effect(results, name, other) for results in all_results)]
        for name, other in list(pairs)[:MOST_EFFECTS]
    ]
    return make_table(("Difference", *map(_task_head, all_results)), rows) if rows else None


def _effect(results: Results, name: str, other: str) -> Cell:
    metric, arm = metrics.headline(results.task)[0], results.arm(name)
    found = arm.differences.get(other, {}).get(metric) if arm else None
    return difference_cell(metric, found) if found else Cell("")


def _task_head(results: Results) -> str:
    name = metrics.headline(results.task)[0]
    return f"{results.task.official.replace('_', '-')} {metric_head(name)}"
