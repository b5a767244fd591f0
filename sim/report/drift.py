"""Score by age of the query: adapters trained once at a cut against adapters trained every year.

Several runs of the same users make one table: one run with ``drift.refresh=0``, whose adapters
answer the queries of all years, and one for each later year, whose adapters were trained anew on
everything before that year. Both are held against each other over the queries of that year that
both answered, users paired. Ages come from the manifest, which only the simulation reads.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from lamp import metrics
from sim import statistics
from sim.report.layout import Layout, Panel, Point, Series
from sim.report.pooling import Results, setting
from sim.report.run_records import Answer, Run
from sim.report.tables import (
    ABSENT,
    Cell,
    difference_cell,
    estimate_cell,
    make_table,
    metric_head,
    metric_title,
)
from sim.statistics import Difference, Estimate, UserSums
from strategy.methods import METHODS

ONCE = 0  # drift.refresh of the run whose adapters are trained at the cut
REFRESHED = "refreshed yearly"
NOTES = (
    "Once: adapters trained at the cut; refreshed: trained anew on everything before the start of "
    "the query's year. Both start from the same M_base, which knows nothing of what follows the "
    "cut. Refreshed minus once is over the same users and queries; the last column holds the same "
    "users' later queries against those of the first year.",
    "A refreshed adapter has seen newer records and more of them, and has made more steps. A world "
    "in which nobody changes (world.drift=0) shows what more records bring by themselves; queries "
    "of different years are different questions there too.",
)

Answers = Mapping[str, Mapping[str, Answer]]  # user -> query -> answer
BySeed = Mapping[int, Answers]


@dataclass(frozen=True, slots=True)
class AgedScore:
    """One method on the queries of one age.

    Attributes:
        method: Name of the arm.
        age: Whole years between cut and query.
        users: Users with an answered query of that age.
        queries: Such queries, all seeds together.
        once: Headline metric of the adapters trained at the cut.
        refreshed: Of those trained at the start of the year; None in the first year, where they
            are the same, for methods that train none, and where there is no such run.
        gain: Refreshed minus once.
        change: Once, minus once in the first year; None in that year.
    """

    method: str
    age: int
    users: int
    queries: int
    once: Estimate | None
    refreshed: Estimate | None
    gain: Difference | None
    change: Difference | None


@dataclass(frozen=True, slots=True)
class Drift:
    """The runs of one setting, by ``drift.refresh``."""

    by_refresh: Mapping[int, Results]

    @property
    def first(self) -> Results:
        """The run of the earliest training."""
        return self.by_refresh[min(self.by_refresh)]

    @property
    def label(self) -> str:
        """Task and world; how fast the world changes where it is the miniature."""
        run = self.first.runs[0]
        changes = f", drift {run.config.world.drift:g}" if run.config.data == "miniature" else ""
        return f"{run.task.title.partition(' ')[0]}, {run.world}{changes}"

    @property
    def metric(self) -> str:
        """The headline metric."""
        return metrics.headline(self.first.task)[0]


def drift_layout(all_results: Sequence[Results]) -> Layout:
    """One table and one panel per setting, over the runs with and without refresh."""
    drifts = group(all_results)
    found = [(drift, aged_scores(drift)) for drift in drifts]
    names = " / ".join(dict.fromkeys(metric_head(drift.metric) for drift in drifts))
    titles = " / ".join(dict.fromkeys(metric_title(drift.metric) for drift in drifts))
    head = ["Data", "Method", "Years after the cut", "Users", "Queries"]
    head += [f"{names}, once", f"{names}, refreshed"]
    head += [f"{titles}, refreshed minus once", f"{titles}, once minus its first year"]
    rows = [_row(drift, score) for drift, scores in found for score in scores]
    return Layout(
        "Drift: score by age of the query",
        {"drift": make_table(head, rows, left=3)},
        tuple(_panel(drift, scores) for drift, scores in found),
        NOTES,
    )


def group(all_results: Sequence[Results]) -> list[Drift]:
    """Bring together the settings that differ in ``drift.refresh`` alone."""
    groups: dict[str, dict[int, Results]] = {}
    for results in all_results:
        run = results.runs[0]
        tree = setting(run)
        tree["drift"] = {**tree["drift"], "refresh": None}
        same = groups.setdefault(json.dumps(tree, sort_keys=True), {})
        same[run.config.drift.refresh] = results
    return [Drift(by_refresh) for by_refresh in groups.values()]


def aged_scores(drift: Drift) -> tuple[AgedScore, ...]:
    """Every method at every age, in the order of the configuration."""
    years = range(drift.first.runs[0].config.drift.years)
    return tuple(
        score
        for arm in drift.first.arms
        for age in years
        if (score := _score(drift, arm.arm.name, age)) is not None
    )


def ages_of(run: Run) -> Mapping[str, int]:
    """Query id -> whole years after the cut; empty for a run without one."""
    ages: Mapping[str, int] = run.manifest.get("data", {}).get("ages", {})
    return ages


def _score(drift: Drift, arm: str, age: int) -> AgedScore | None:
    once = _answers(drift.by_refresh.get(ONCE), arm, age)
    anew = age != ONCE and _adapts(drift, arm)
    newer = _answers(drift.by_refresh.get(age), arm, age) if anew else {}
    if not any((*once.values(), *newer.values())):
        return None
    first = _answers(drift.by_refresh.get(ONCE), arm, ONCE) if age != ONCE else {}
    sums = _sums(drift, once or newer)
    return AgedScore(
        method=arm,
        age=age,
        users=len(sums.users),
        queries=sums.num_queries,
        once=_estimate(drift, once),
        refreshed=_estimate(drift, newer),
        gain=_compare(drift, *_common_queries(newer, once)),
        change=_compare(drift, *_common_users(once, first)),
    )


def _adapts(drift: Drift, arm: str) -> bool:
    """Whether a refresh trains anything; an unknown method is taken to adapt."""
    found = drift.first.arm(arm)
    method = METHODS.get(found.arm.method) if found else None
    return method is None or method.adapts


def _answers(results: Results | None, arm: str, age: int) -> dict[int, Answers]:
    """Per seed the answers to the queries of one age."""
    if results is None:
        return {}
    return {run.config.seed: _of_age(run, arm, age) for run in results.runs}


def _of_age(run: Run, arm: str, age: int) -> Answers:
    ages = ages_of(run)
    found: dict[str, dict[str, Answer]] = {}
    for answer in run.answers.get(arm, ()):
        if answer.query is not None and ages.get(answer.query) == age:
            found.setdefault(answer.user, {})[answer.query] = answer
    return found


def _common_queries(first: BySeed, second: BySeed) -> tuple[BySeed, BySeed]:
    """Both, over the seeds, users and queries that both have."""
    here: dict[int, Answers] = {}
    there: dict[int, Answers] = {}
    for seed, user, mine, theirs in _common(first, second):
        keys = [query for query in mine if query in theirs]
        if keys:
            here[seed] = {**here.get(seed, {}), user: {query: mine[query] for query in keys}}
            there[seed] = {**there.get(seed, {}), user: {query: theirs[query] for query in keys}}
    return here, there


def _common_users(first: BySeed, second: BySeed) -> tuple[BySeed, BySeed]:
    """Both, over the seeds and users that both have."""
    here: dict[int, Answers] = {}
    there: dict[int, Answers] = {}
    for seed, user, mine, theirs in _common(first, second):
        here[seed] = {**here.get(seed, {}), user: mine}
        there[seed] = {**there.get(seed, {}), user: theirs}
    return here, there


def _common(
    first: BySeed, second: BySeed
) -> Iterator[tuple[int, str, Mapping[str, Answer], Mapping[str, Answer]]]:
    for seed, users in first.items():
        for user, mine in users.items():
            if user in second.get(seed, {}):
                yield seed, user, mine, second[seed][user]


def _sums(drift: Drift, answers: BySeed) -> UserSums:
    task = drift.first.task
    return statistics.make_user_sums(
        task,
        [
            {
                user: metrics.sums(task, [answer.score for answer in own.values()])
                for user, own in users.items()
            }
            for users in answers.values()
        ],
    )


def _estimate(drift: Drift, answers: BySeed) -> Estimate | None:
    if not any(answers.values()):
        return None
    found = statistics.estimate(_sums(drift, answers), drift.first.resampling)
    return found.get(drift.metric)


def _compare(drift: Drift, first: BySeed, second: BySeed) -> Difference | None:
    if not any(first.values()):
        return None
    sums = _sums(drift, first), _sums(drift, second)
    return statistics.compare(*sums, drift.first.resampling).get(drift.metric)


def _row(drift: Drift, score: AgedScore) -> list[Cell | str]:
    return [
        drift.label,
        score.method,
        f"{score.age} to {score.age + 1}",
        str(score.users),
        str(score.queries),
        estimate_cell(score.once) if score.once else ABSENT,
        estimate_cell(score.refreshed) if score.refreshed else ABSENT,
        difference_cell(drift.metric, score.gain) if score.gain else ABSENT,
        difference_cell(drift.metric, score.change) if score.change else ABSENT,
    ]


def _panel(drift: Drift, scores: Sequence[AgedScore]) -> Panel:
    series: list[Series] = []
    for method in dict.fromkeys(score.method for score in scores):
        own = [score for score in scores if score.method == method]
        once = [Point(float(each.age), each.once) for each in own if each.once]
        series.append(Series(method, tuple(once)))
        newer = [Point(float(each.age), each.refreshed) for each in own if each.refreshed]
        if newer:
            start = [point for point in once if point.x == ONCE]
            label = f"{method}, {REFRESHED}"
            series.append(Series(method, (*start, *newer), label=label, dashed=True))
    return Panel(drift.label, "whole years between cut and query", drift.metric, tuple(series))
