"""Case studies as in the paper's Figure 3: one query, its gold answer, every method's answer.

Only runs with ``evaluation.ship_predictions`` have the texts. The page shows where cdcda helps most
and where it hurts most, as many of each: a page of successes would tell nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clients import folder as device_folder
from lamp import metrics
from lamp.records import Query
from lamp.tasks import Task, query_text
from sim.folders import RunFolder
from sim.report.frames import headline_score
from sim.report.run_records import Answer, Run
from sim.report.tables import Table, make_table, markdown_text, number, signed, to_markdown
from strategy import methods

MOST_CASES = 3  # on each side


@dataclass(frozen=True, slots=True)
class Case:
    """One query.

    Attributes:
        user: Whose query.
        query: Its id.
        asked: The text x; "" where the device's folder is gone.
        gold: Gold answer.
        gain: The studied method's score minus the reference's, better is up.
        answers: Method, answer and score.
    """

    user: str
    query: str
    asked: str
    gold: str
    gain: float
    answers: Table


def case_page(run: Run, title: str) -> str | None:
    """The page as Markdown; None where no texts were shipped or there is nothing to compare."""
    studied = next(
        (arm.name for arm in reversed(run.arms) if arm.method == methods.studied()), None
    )
    reference = next(
        (arm.name for each in methods.compared() for arm in run.arms if arm.method == each), None
    )
    if studied is None or reference is None:
        return None
    cases = _cases(run, studied, reference)
    if not cases:
        return None
    best = [case for case in cases[:MOST_CASES] if case.gain > 0]
    worst = [case for case in reversed(cases[-MOST_CASES:]) if case.gain < 0]
    parts = [f"# Case studies: {title}", ""]
    parts += [
        f"Of {len(cases)} queries {sum(case.gain > 0 for case in cases)} are answered better by "
        f"{studied} than by {reference}, {sum(case.gain < 0 for case in cases)} worse. "
        "Texts left the devices because `evaluation.ship_predictions` was set.",
        "",
    ]
    for heading, chosen in ((f"Where {studied} helps most", best), ("Where it hurts most", worst)):
        parts += [f"## {heading}", "", *(_section(case) for case in chosen)]
        parts += [] if chosen else ["Nowhere.", ""]
    return "\n".join(parts)


def _section(case: Case) -> str:
    asked = [f"> {markdown_text(case.asked)}", ""] if case.asked else []
    named = f"User {markdown_text(case.user)}, query {markdown_text(case.query)}"
    lines = [f"### {named}: {signed(case.gain)}", "", *asked]
    lines += [f"Gold answer: {markdown_text(case.gold)}", "", to_markdown(case.answers), ""]
    return "\n".join(lines)


def _cases(run: Run, studied: str, reference: str) -> list[Case]:
    """Every query with texts, the largest gain first; ties by query."""
    by_query: dict[str, dict[str, Answer]] = {}
    for arm in run.arms:
        for answer in run.answers.get(arm.name, ()):
            if answer.query is not None and answer.text is not None:
                by_query.setdefault(answer.query, {})[arm.name] = answer
    queries = _queries(run) if by_query else {}
    cases = [
        _case(run, answers, studied, reference, queries.get(query))
        for query, answers in by_query.items()
        if studied in answers and reference in answers
    ]
    return sorted(cases, key=lambda case: (-case.gain, case.query))


def _case(
    run: Run, answers: Mapping[str, Answer], studied: str, reference: str, query: Query | None
) -> Case:
    _, higher = metrics.headline(run.task)
    gain = headline_score(run.task, answers[studied]) - headline_score(run.task, answers[reference])
    answer = answers[studied]
    rows = [
        [arm.name, " ".join((found.text or "").split()) or "(empty)", _shown(run.task, found)]
        for arm in run.arms
        if (found := answers.get(arm.name))
    ]
    return Case(
        user=answer.user,
        query=answer.query or "",
        asked=query_text(run.task, query) if query else "",
        gold=answer.gold_text or "",
        gain=gain if higher else -gain,
        answers=make_table(("Method", "Answer", "Score"), rows, left=2),
    )


def _shown(task: Task, answer: Answer) -> str:
    if task.kind == "classification":
        return "right" if headline_score(task, answer) else "wrong"
    return number(headline_score(task, answer))


def _queries(run: Run) -> dict[str, Query]:
    """The queries by id, from the devices' folders: the simulation's own knowledge."""
    devices: Any = RunFolder(run.folder).devices
    if not devices.is_dir():
        return {}
    return {
        query.id: query
        for path in device_folder.device_folders(devices)
        for query in device_folder.read(path).history.queries
    }
