"""The verdict of a run in plain sentences: did it help, whom, what left the devices.

Every sentence is made from declared contrasts and counted facts; none says more than its interval.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import combinations

from lamp import metrics
from sim.report import exercised
from sim.report.contrasts import primary_pairs, without_method
from sim.report.frames import augmentation_frame, ledger_frame, user_scores
from sim.report.pooling import ArmResult, Results, person, seeds_of
from sim.report.run_records import Run
from sim.report.tables import (
    LOWER_IS_BETTER,
    count,
    metric_title,
    number,
    percent,
    plural,
    probability,
    signed,
    size,
    tone,
)
from sim.statistics import Difference, user_mean_name

SAME = 1e-9  # own scores closer than this are the same


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a run says, one sentence each.

    Attributes:
        effects: One per declared contrast that the run has.
        users: Who scores better and worse, per contrast, and how many do by chance.
        privacy: What left the devices.
        untested: Why no contrast was tested, where none was.
        lacking: Which declared contrasts lack which method; "" where none does.
    """

    effects: tuple[str, ...]
    users: tuple[str, ...]
    privacy: str
    untested: str
    lacking: str

    @property
    def headline(self) -> str:
        """The first sentence, for the terminal."""
        return self.effects[0] if self.effects else self.untested


NO_ANSWERS = (
    "Nothing was tested: no declared contrast (`contrasts`) has a query yet that both its methods "
    "answered."
)
NO_CONTRAST = (
    "None of the declared contrasts has both its methods in this run (`contrasts`), so nothing was "
    "tested; the table shows scores."
)


def verdict(results: Results) -> Verdict:
    """Judge the declared contrasts of one run, or of several seeds of one setting."""
    name = metrics.headline(results.task)[0]
    contrasts, arms = results.runs[0].config.contrasts, [result.arm for result in results.arms]
    pairs = primary_pairs(contrasts, arms)
    effects, users = [], []
    for first, second in pairs:
        result = results.arm(first)
        found = result.differences.get(second, {}).get(name) if result else None
        if result is None or found is None:
            continue
        effects.append(_effect(result, second, name, found))
        if result.exercised:
            users.append(_helped(results, first, second, name))
    if users and (chance := _by_chance(results, pairs[0][1], name)):
        users.append(chance)
    return Verdict(
        tuple(effects),
        tuple(users),
        _privacy(results.runs),
        untested=NO_ANSWERS if pairs else NO_CONTRAST,
        lacking=without_method(contrasts, arms),
    )


def _effect(result: ArmResult, reference: str, name: str, found: Difference) -> str:
    head = f"{result.arm.name} against {reference}: "
    if not result.exercised:
        return (
            f"{head}{exercised.LABEL}, so its scores show neither an effect nor that there is none."
        )
    if found.low is None or found.high is None or found.adjusted_p is None:
        return f"{head}{plural(found.users, 'user')} alone cannot be judged."
    better = "lower" if name in LOWER_IS_BETTER else "higher"
    numbers = (
        f"{metric_title(name)} {signed(found.value)} [{signed(found.low)}, {signed(found.high)}] "
        f"({better} is better), p {probability(found.adjusted_p)} after Holm"
    )
    judged = tone(name, found)
    if judged != "plain":
        return f"{head}{judged}. {numbers}, {plural(found.users, 'user')}."
    if found.low > 0 or found.high < 0:
        doubt = "its interval leaves out zero, but the test does not confirm it"
        return f"{head}no difference shown: {doubt}. {numbers}, {plural(found.users, 'user')}."
    limit = found.minimum_detectable_effect
    power = "" if limit is None else f"; a true difference of {number(limit)} would be found"
    needed = found.required_sample_size
    more = f", this one by {count(needed)} users" if needed and limit is not None else ""
    return f"{head}no difference shown. {numbers}, {plural(found.users, 'user')}{power}{more}."


def _helped(results: Results, first: str, second: str, name: str) -> str:
    gains = user_gains(results, first, second, name)
    found = Counter(_sign(gain) for gain in gains.values())
    return (
        f"Of {plural(len(gains), 'user')} {found[1]} score better with {first} than with {second}, "
        f"{found[-1]} worse, {found[0]} the same."
    )


def user_gains(results: Results, first: str, second: str, name: str) -> dict[str, float]:
    """Per user the mean over seeds of own score under ``first`` minus ``second``; better is up."""
    sums: dict[str, list[float]] = {}
    for run in results.runs:
        for user, gain in _gains(run, first, run, second, name).items():
            sums.setdefault(person(run, user, results.runs), []).append(gain)
    return {user: sum(gains) / len(gains) for user, gains in sums.items()}


def shown_gains(results: Results, first: str, second: str, name: str) -> dict[str, float]:
    """:func:`user_gains` of the first run's users, by their ids there: those that charts show."""
    gains, run = user_gains(results, first, second, name), results.runs[0]
    named = {user: person(run, user, results.runs) for user in run.registry}
    return {user: gains[each] for user, each in named.items() if each in gains}


def _gains(run: Run, first: str, other: Run, second: str, name: str) -> dict[str, float]:
    own = user_mean_name(run.task).removeprefix("user_mean_")
    here, there = user_scores(run, first), user_scores(other, second)
    sign = -1.0 if name in LOWER_IS_BETTER else 1.0
    return {
        user: sign * (scores[own] - there[user][own])
        for user, scores in here.items()
        if own in scores and own in there.get(user, {})
    }


def _by_chance(results: Results, arm: str, name: str) -> str | None:
    """How many users differ between two seeds of one arm, where there are two."""
    pairs = [(a, b) for a, b in combinations(results.runs, 2) if seeds_of(a)[1] == seeds_of(b)[1]]
    if not pairs:
        return "How many would differ between two seeds of one arm is not known: there is one seed."
    found = [_gains(a, arm, b, arm, name) for a, b in pairs]
    signs = Counter(_sign(gain) for gains in found for gain in gains.values())
    total = max(1, signs.total())
    return (
        f"By chance: between two seeds of {arm} itself {percent(signs[1], total)} score better and "
        f"{percent(signs[-1], total)} worse."
    )


def _sign(gain: float) -> int:
    return 0 if abs(gain) < SAME else 1 if gain > 0 else -1


def _privacy(runs: tuple[Run, ...]) -> str:
    run = runs[0]  # as the tables and charts of users and messages
    sent = ledger_frame(run)
    up = sent[sent.direction == "up"]
    records = up[~up.redelivery.astype(bool)].groupby("user").records.max().sum()
    made = augmentation_frame(run)
    parts = [f"{count(records)} records and {size(int(up.bytes.sum()))} in all left the devices"]
    if len(made):
        kept, generated = made.groupby("arm")[["kept", "generated"]].sum().max()
        parts.append(f"{count(kept)} of {count(generated)} synthetic pairs were kept")
    return "; ".join(parts) + "."
