"""Pool the answers of one run, or of several seeds of one setting, into one record per arm.

Pooled metrics are LaMP's own over all queries (:func:`lamp.metrics.pooled_metrics`); intervals and
paired differences come from :mod:`sim.statistics`. Arms are compared over the queries that both
have, so a user who failed in one arm is left out of that comparison, and the record says how many
remain.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from conf.checks import MINIATURE
from conf.compose import to_json
from conf.errors import RunError
from conf.seeds import derive_seed
from lamp import metrics
from lamp.tasks import Task
from sim import statistics
from sim.report import exercised
from sim.report.contrasts import holm, primary_pairs
from sim.report.run_records import Answer, ArmName, Run
from sim.statistics import Difference, Estimate, Floats, Resampling
from storage import atomic
from storage.text_files import shown
from strategy.methods import METHODS

FEWEST_RATIOS = 3  # of a curve whose trend is told
# what may differ between the seeds of one setting: paths and resources do not touch results, and an
# arm that only some seeds have is pooled over these
FREE_KEYS = ("seed", "name", "paths", "resources", "trackers", "sweep", "layout", "methods")


@dataclass(frozen=True, slots=True)
class ArmResult:
    """What one arm scored, over all given seeds.

    Attributes:
        arm: The arm.
        users: Users with at least one scored query.
        queries: Scored queries, all seeds together.
        metrics: By metric name, see :func:`lamp.metrics.pooled_metrics`.
        differences: By the other arm's name and metric: this arm minus the other.
        failures: Users with a message that got no good reply, counted once per seed.
        exercised: Whether the method was put to the test in every run (sim/report/exercised.py).
    """

    arm: ArmName
    users: int
    queries: int
    metrics: Mapping[str, Estimate]
    differences: Mapping[str, Mapping[str, Difference]]
    failures: int
    exercised: bool = True


@dataclass(frozen=True, slots=True)
class Results:
    """One task, one setting: one run, or one run per seed.

    Attributes:
        runs: The runs, by seed.
        arms: Per arm, in the order of the configuration.
        resampling: How the intervals were drawn.
    """

    runs: tuple[Run, ...]
    arms: tuple[ArmResult, ...]
    resampling: Resampling

    @property
    def task(self) -> Task:
        """The task of all runs."""
        return self.runs[0].task

    def arm(self, name: str) -> ArmResult | None:
        """The arm of that name, None where there is none."""
        return next((each for each in self.arms if each.arm.name == name), None)


def summarise(runs: Sequence[Run]) -> Results:
    """Pool and compare the arms of one run, or of several seeds of the same setting.

    Raises:
        RunError: If the runs differ in more than their seeds, or a seed comes twice.
    """
    ordered = tuple(sorted(runs, key=seeds_of))
    check_same_setting(ordered)
    evaluation, seeds = ordered[0].config.evaluation, [run.config.seed for run in ordered]
    resampling = Resampling(
        resamples=evaluation.bootstrap,
        confidence=evaluation.confidence,
        seed=derive_seed(seeds[0], "results", *seeds[1:]),
    )
    names = {arm.name: arm for run in ordered for arm in run.arms}
    scored = {
        name: [
            {person(run, user, ordered): rows for user, rows in scored_users(run, name).items()}
            for run in ordered
        ]
        for name in names
    }
    primary = primary_pairs(ordered[0].config.contrasts, list(names.values()))
    permutations = ordered[0].config.permutations
    tested = replace(resampling, permutations=permutations)
    differences = _adjusted(
        _compare_all(ordered[0].task, scored, resampling, tested, primary),
        primary,
        metrics.headline(ordered[0].task)[0],
    )
    arms = tuple(
        _summarise_arm(ordered, arm, scored[name], differences[name], resampling)
        for name, arm in names.items()
    )
    return Results(ordered, arms, resampling)


def check_same_setting(runs: Sequence[Run]) -> None:
    """Refuse runs that are no repetitions of one another.

    Raises:
        RunError: If there is no run, a seed comes twice, or any other key differs.
    """
    if not runs:
        raise RunError("runs: expected at least one run folder, got none")
    seen: dict[tuple[int, ...], str] = {}
    for run in runs:
        if keys := differing_keys(runs[0], run):
            raise RunError(
                f"runs: expected the same setting under several seeds, but "
                f"'{runs[0].folder.name}' and '{run.folder.name}' differ in {', '.join(keys)}; "
                "report them one by one"
            )
        if (seeds := seeds_of(run)) in seen:
            raise RunError(
                f"runs: '{run.folder.name}' and '{seen[seeds]}' are one setting and both "
                f"have seed {run.config.seed}; give each seed once"
            )
        seen[seeds] = run.folder.name


def seeds_of(run: Run) -> tuple[int, ...]:
    """What tells repetitions of a setting apart: the seeds of the run, its world and its networks.

    The last two are 0 where the data are no generated world and the networks not built.
    """
    config = run.config
    world = config.world.seed if config.data == MINIATURE else 0
    return config.seed, world, config.model.build.seed if config.model.build else 0


def seed_label(run: Run, runs: Sequence[Run]) -> str:
    """The run's seed, and the others where they differ among ``runs``."""
    seed, *others = seeds_of(run)
    columns = [*zip(*(seeds_of(each)[1:] for each in runs), strict=True)]
    parts = [
        f"{name} {own}"
        for name, own, column in zip(("world", "networks"), others, columns, strict=True)
        if len(set(column)) > 1
    ]
    return f"{seed} ({', '.join(parts)})" if parts else str(seed)


def person(run: Run, user: str, runs: Sequence[Run]) -> str:
    """Who a user is among ``runs``: the same id in another generated world is somebody else."""
    worlds = {seeds_of(each)[1] for each in runs}
    return f"{user} of world {seeds_of(run)[1]}" if len(worlds) > 1 else user


def setting(run: Run) -> dict[str, Any]:
    """The run's configuration without :data:`FREE_KEYS`, folders by their last name only."""
    tree: dict[str, Any] = json.loads(to_json(run.config))
    tree["data"] = Path(tree["data"]).name
    for model in ("cloud", "device", "nli"):
        tree["model"][model]["path"] = Path(tree["model"][model]["path"]).name
    tree["world"].pop("seed")
    if tree["model"]["build"]:
        tree["model"]["build"].pop("seed")
    return {key: value for key, value in tree.items() if key not in FREE_KEYS}


def differing_keys(first: Run, second: Run) -> list[str]:
    """Dotted paths of the keys in which two settings differ."""
    return _differing_keys(setting(first), setting(second))


def value_of(run: Run, key: str) -> Any:
    """The value of one dotted key of the run's setting."""
    value: Any = setting(run)
    for part in key.split("."):
        value = value[part]
    return value


def _differing_keys(first: Any, second: Any, prefix: str = "") -> list[str]:
    if isinstance(first, dict) and isinstance(second, dict):
        return [
            key
            for name in sorted({*first, *second})
            for key in _differing_keys(first.get(name), second.get(name), f"{prefix}.{name}")
        ]
    return [] if first == second else [prefix.lstrip(".")]


def _summarise_arm(
    runs: Sequence[Run],
    arm: ArmName,
    scored: Sequence[Scored],
    differences: Mapping[str, Mapping[str, Difference]],
    resampling: Resampling,
) -> ArmResult:
    sums = statistics.make_user_sums(
        runs[0].task, [{user: rows.sums for user, rows in each.items()} for each in scored]
    )
    return ArmResult(
        arm=arm,
        users=len(sums.users),
        queries=sums.num_queries,
        metrics=_with_pooled(runs, arm.name, statistics.estimate(sums, resampling)),
        differences=differences,
        failures=sum(len(failed_users(run, arm)) for run in runs),
        exercised=all(exercised.why_not(run, arm) is None for run in runs),
    )


def failed_users(run: Run, arm: ArmName) -> frozenset[str]:
    """Users with a failed message in ``arm``, or in the sharing before it where the arm shares."""
    method = METHODS.get(arm.method)
    stages = {arm.name, ""} if method is None or method.needs_shares else {arm.name}
    return frozenset(failure.user for failure in run.failures if failure.arm in stages)


def _with_pooled(
    runs: Sequence[Run], arm: str, estimates: Mapping[str, Estimate]
) -> dict[str, Estimate]:
    """Put LaMP's own values, to the last bit, in the place of those from sums."""
    pooled = [values for run in runs if (values := _pooled(run, arm))]
    found = dict(estimates)
    for name in dict.fromkeys(name for values in pooled for name in values):
        per_seed = tuple(values[name] for values in pooled if np.isfinite(values.get(name, np.nan)))
        if per_seed:
            value = sum(per_seed) / len(per_seed)
            kept = found.get(name, Estimate(value, None, None, per_seed))
            found[name] = replace(kept, value=value, per_seed=per_seed)
    return found


def _pooled(run: Run, arm: str) -> dict[str, float]:
    answers = run.answers.get(arm, ())
    if not answers or any(answer.query is None for answer in answers):
        return {}
    seed = derive_seed(run.config.seed, "lamp_compat")
    return metrics.pooled_metrics(run.task, [answer.score for answer in answers], seed)


@dataclass(frozen=True, slots=True, eq=False)
class ScoredUser:
    """One user's answers in one arm and seed.

    Attributes:
        answers: By query id; by number of queries where only sums were disclosed, so that two
            arms pair a user if both sums are over equally many queries.
        sums: Their sums, see :func:`lamp.metrics.sums`.
    """

    answers: Mapping[str | int, Answer]
    sums: Floats


Scored = Mapping[str, ScoredUser]


def scored_users(run: Run, arm: str) -> dict[str, ScoredUser]:
    """The users of one arm that have a scored query."""
    by_user: dict[str, dict[str | int, Answer]] = {}
    for answer in run.answers.get(arm, ()):
        key = answer.queries if answer.query is None else answer.query
        if answer.queries:
            by_user.setdefault(answer.user, {})[key] = answer
    return {
        user: ScoredUser(rows, _sums(run.task, tuple(rows.values())))
        for user, rows in by_user.items()
    }


Differences = dict[str, dict[str, dict[str, Difference]]]  # first arm, second arm, metric


def _adjusted(found: Differences, primary: Sequence[tuple[str, str]], headline: str) -> Differences:
    """Put Holm's adjusted p values into the primary contrasts' headline differences."""
    p_values = {
        (first, second): p
        for first, second in primary
        if (each := found[first].get(second, {}).get(headline)) and (p := each.p) is not None
    }
    for (first, second), p in holm(p_values).items():
        for one, other in ((first, second), (second, first)):
            cell = found[one][other]
            cell[headline] = replace(cell[headline], adjusted_p=p)
    return found


def _compare_all(
    task: Task,
    scored: Mapping[str, Sequence[Scored]],
    resampling: Resampling,
    tested: Resampling,
    primary: Sequence[tuple[str, str]],
) -> Differences:
    """Compare every two arms; ``primary`` pairs by the permutations of ``tested``."""
    found: Differences = {name: {} for name in scored}
    for first, second in combinations(scored, 2):
        declared = (first, second) in primary or (second, first) in primary
        drawn = tested if declared else resampling
        if compared := _compare(task, scored[first], scored[second], drawn):
            found[first][second] = compared
            found[second][first] = {
                name: statistics.reverse(each) for name, each in compared.items()
            }
    return found


def _compare(
    task: Task, first: Sequence[Scored], second: Sequence[Scored], resampling: Resampling
) -> dict[str, Difference]:
    """Compare two arms over the queries that both answered, seed by seed."""
    pairs = [_common(task, *seed) for seed in zip(first, second, strict=True)]
    here = statistics.make_user_sums(task, [pair[0] for pair in pairs])
    there = statistics.make_user_sums(task, [pair[1] for pair in pairs])
    return statistics.compare(here, there, resampling) if here.users else {}


def _common(
    task: Task, first: Scored, second: Scored
) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Sums per user over the queries that both arms have."""
    here, there = {}, {}
    for user, mine in first.items():
        theirs = second.get(user)
        keys = [key for key in mine.answers if theirs and key in theirs.answers]
        if theirs is None or not keys:
            continue
        here[user] = _sums_over(task, mine, keys)
        there[user] = _sums_over(task, theirs, keys)
    return here, there


@dataclass(frozen=True, slots=True)
class Curve:
    """One method along its share ratio.

    Attributes:
        method: Method.
        arms: Arms by rising ratio; the one at 0 is the method that trains on D_u alone.
        ratios: Their ratios.
        rho: Per metric Spearman's rank correlation of ratio and score, with its interval over
            users; absent where the score never changes.
    """

    method: str
    arms: tuple[ArmResult, ...]
    ratios: tuple[float, ...]
    rho: Mapping[str, Estimate]


def ratio_curves(results: Results) -> list[Curve]:
    """Every method with at least :data:`FEWEST_RATIOS` share ratios, 0 included."""
    by_method: dict[str, dict[float, ArmResult]] = {}
    for arm in results.arms:
        if arm.arm.ratio is not None and arm.arm.plain and arm.users:
            by_method.setdefault(arm.arm.method, {})[arm.arm.ratio] = arm
    curves = []
    for method, found in by_method.items():
        nothing = results.arm(_without_sharing(method))
        points = {0.0: nothing, **found} if nothing and nothing.users else found
        if len(points) >= FEWEST_RATIOS:
            ratios = tuple(sorted(points))
            arms = tuple(points[ratio] for ratio in ratios)
            sums = common_sums(results, [arm.arm.name for arm in arms])
            rho = statistics.rank_correlation(ratios, sums, results.resampling)
            curves.append(Curve(method, arms, ratios, rho))
    return curves


def _without_sharing(method: str) -> str:
    """What a method is at share ratio 0: the one that trains on D_u alone in the same way."""
    return METHODS[method].without_sharing if method in METHODS else ""


def common_sums(results: Results, names: Sequence[str]) -> list[statistics.UserSums]:
    """Each arm's sums over the users and queries that all of ``names`` have, seed by seed."""
    by_arm: list[list[dict[str, Floats]]] = [[] for _ in names]
    for run in results.runs:
        scored = [scored_users(run, name) for name in names]
        shared = set(scored[0]).intersection(*scored[1:])
        keys = {
            user: [k for k in scored[0][user].answers if all(k in s[user].answers for s in scored)]
            for user in shared
        }
        for place, arm in enumerate(scored):
            by_arm[place].append(
                {user: _sums_over(run.task, arm[user], own) for user, own in keys.items() if own}
            )
    return [statistics.make_user_sums(results.task, each) for each in by_arm]


def _sums_over(task: Task, scored: ScoredUser, keys: Sequence[str | int]) -> Floats:
    if len(keys) == len(scored.answers):
        return scored.sums
    return _sums(task, [scored.answers[key] for key in keys])


def _sums(task: Task, answers: Sequence[Answer]) -> Floats:
    disclosed = next((answer for answer in answers if answer.query is None), None)
    if disclosed is None:
        return metrics.sums(task, [answer.score for answer in answers])
    sums = np.asarray(disclosed.sums or (), dtype=np.float64)
    if len(sums) != metrics.sums_width(task):
        raise RunError(
            f"answers.jsonl, arm {disclosed.arm}, user {shown(disclosed.user)}: expected "
            f"{metrics.sums_width(task)} sums for {task.name}, got {len(sums)}; the run was made "
            "by another version, run it again"
        )
    return sums


def arm_numbers(run: Run, arm: str) -> dict[str, float]:
    """What a tracker shows of one arm: LaMP's metrics, seconds per phase, the users' last loss."""
    pooled = _pooled(run, arm)
    found = {name: value for name, value in pooled.items() if not name.startswith("lamp_compat")}
    found |= {f"seconds/{line.phase}": line.seconds for line in run.phases if line.arm == arm}
    lines = [line for (name, _), line in run.adaptations.items() if name == arm]
    if last := [line.losses[-1] for line in lines if line.losses]:
        found["last_loss"] = sum(last) / len(last)
    return {f"{arm}/{name}": value for name, value in found.items()}


def write_results(results: Results) -> None:
    """Write results.jsonl into the run folder: one line per arm."""
    lines = [json.dumps(as_line(results, arm), sort_keys=True) + "\n" for arm in results.arms]
    atomic.write_text(results.runs[0].folder / "results.jsonl", "".join(lines))


def as_line(results: Results, result: ArmResult) -> dict[str, Any]:
    """One arm as JSON; every number is finite, what is undefined is null or absent."""
    parsing = result.metrics.get("parse_failure_rate")
    return {
        "arm": result.arm.name,
        "method": result.arm.method,
        "ratio": result.arm.ratio,
        "k": result.arm.k,
        "thresholds": dict(result.arm.thresholds),
        "epsilon": result.arm.epsilon,
        "task": results.task.name,
        "seeds": [run.config.seed for run in results.runs],
        "users": result.users,
        "queries": result.queries,
        "metrics": {name: _estimate_json(each) for name, each in result.metrics.items()},
        "differences": {
            other: {name: _difference_json(each) for name, each in found.items()}
            for other, found in result.differences.items()
        },
        "parse_failure_rate": None if parsing is None else parsing.value,
        "failures": result.failures,
        "exercised": result.exercised,
    }


def _estimate_json(estimate: Estimate) -> dict[str, Any]:
    found: dict[str, Any] = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
    if len(estimate.per_seed) > 1:
        found |= {"per_seed": list(estimate.per_seed), "sd_over_seeds": estimate.spread}
    return found


def _difference_json(difference: Difference) -> dict[str, Any]:
    return {
        **_estimate_json(difference),
        "p": difference.p,
        "adjusted_p": difference.adjusted_p,
        "minimum_detectable_effect": difference.minimum_detectable_effect,
        "required_sample_size": difference.required_sample_size,
        "users": difference.users,
        "queries": difference.queries,
    }
