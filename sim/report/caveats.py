"""What a reader must know before believing a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from clients.folder import STALE
from lamp import metrics
from sim.report import exercised
from sim.report.filter_tables import (
    ALIGNED,
    READING,
    asks,
    augmentations_of,
    gates,
    other_reasons,
    reason_title,
    total_of,
)
from sim.report.pooling import ArmResult, Results, failed_users, scored_users
from sim.report.run_records import Run
from sim.report.run_tables import nli_accuracy
from sim.report.tables import count, percent, plural
from strategy.filters import QUANTILE
from strategy.methods import METHODS, find_method

NEAR_ZERO_KEPT = 0.01
LOW_PASS = 0.05  # a filter that lets fewer candidates pass decides alone
MANY_UNPARSED = 0.1
FEW_USERS = 10
WEAK_NLI = 0.7
SHOWS_NOTHING = "its scores show neither an effect nor that there is none."
LEAST_VARIATION = 0.01  # coefficient of variation of a score over a stream
SCORE_TITLES = {"entropy": "entropy of embedding", "domain": "domain-specific score"}


def warnings(results: Results) -> list[str]:
    """What a reader must know before believing the table."""
    found = list(_few_users_warnings(results))
    found += [text for result in results.arms for text in _arm_warnings(results, result)]
    for run in results.runs:
        seed = f" (seed {run.config.seed})" if len(results.runs) > 1 else ""
        found += [
            text + seed
            for text in (
                *_filter_warnings(run),
                *_nli_warnings(run),
                *_score_warnings(run),
                *_script_warnings(run),
                *_stale_warnings(run),
                *_epsilon_warnings(run),
                *_unwritten_warnings(run),
            )
        ]
    return list(dict.fromkeys(found))


def _stale_warnings(run: Run) -> Iterator[str]:
    """Adapters that saw withdrawn records: their scores stand until they are trained anew."""
    stale = Counter(path.parent.name for path in run.folder.glob(f"devices/*/adapters/*/{STALE}"))
    for arm, users in sorted(stale.items()):
        yield (
            f"{arm}: {plural(users, 'adapter')} saw records that were withdrawn since; "
            f"python -m sim resume run={run.folder.name} trains them anew."
        )


def _epsilon_warnings(run: Run) -> Iterator[str]:
    """A simulation repeats its noise, and reports other arms' exact numbers beside."""
    names = [arm.name for arm in run.arms if find_method(arm.method).private]
    if names and run.config.engine.name != "deployment":
        yield (
            f"{', '.join(names)}: epsilon is for study: the simulation's noise follows from its "
            "seed, and exact numbers of arms without noise stand beside it."
        )


def _unwritten_warnings(run: Run) -> Iterator[str]:
    """Streaming devices whose own model wrote next to nothing that could be kept."""
    for arm in dict.fromkeys(name for name, _ in run.adaptations):
        lines = [line for (name, _), line in run.adaptations.items() if name == arm]
        kept = sum(line.synthesis[0] for line in lines if line.synthesis)
        written = sum(sum(line.synthesis) for line in lines)
        if written and kept <= NEAR_ZERO_KEPT * written:
            yield (
                f"{arm}: of {count(written)} texts that the devices' own model wrote {count(kept)} "
                "were kept; a miniature is taught to rewrite with model.build.self_synthesis=0.4."
            )


def _few_users_warnings(results: Results) -> Iterator[str]:
    by_users: dict[int, list[str]] = {}
    for result in results.arms:
        if 0 < result.users < FEW_USERS:
            by_users.setdefault(result.users, []).append(result.arm.name)
    for users, names in by_users.items():
        effect = "so there is no interval" if users == 1 else "intervals over so few are rough"
        yield f"{', '.join(names)}: {plural(users, 'user')}; {effect}."


def _arm_warnings(results: Results, result: ArmResult) -> Iterator[str]:
    name, users = result.arm.name, {user for run in results.runs for user in run.registry}
    if not result.users:
        yield f"{name}: no user has a scored query."
        return
    if result.users < len(users):
        failed = {user for run in results.runs for user in failed_users(run, result.arm)}
        why = f"; {len(failed)} with a failed message" if failed else ""
        yield f"{name}: {result.users} of {len(users)} users are scored{why}."
    rate = result.metrics.get("parse_failure_rate")
    if rate is not None and rate.value > MANY_UNPARSED:
        yield f"{name}: {percent(rate.value, 1)} of the answers are unreadable and count as wrong."
    main = result.metrics.get(metrics.headline(results.task)[0])
    if main is not None and main.low is not None and main.low == main.high:
        yield (
            f"{name}: all users have the same score; its interval has no width because nothing "
            "varied, not because nothing is uncertain."
        )


def _filter_warnings(run: Run) -> Iterator[str]:
    for arm in run.arms:
        lines = augmentations_of(run, arm.name)
        total = total_of(lines) if lines else None
        reason = exercised.why_not(run, arm)
        if total is None or not total.generated:
            if reason:
                yield f"{arm.name}: {exercised.LABEL}: {reason}; {SHOWS_NOTHING}"
            continue
        if reason:
            yield (
                f"{arm.name}: {exercised.LABEL}: {reason} ({count(total.kept)} of "
                f"{count(total.generated)}); {SHOWS_NOTHING}"
            )
        for gate, reached, passed in gates(total, other_reasons(run)):
            if gate == QUANTILE or not asks(run, arm, gate):
                continue
            if reached and passed < LOW_PASS * reached:
                known = {READING: "could be read", ALIGNED: "had the shared record's label"}
                let = known.get(gate, f"passed {reason_title(run, gate)}")
                yield f"{arm.name}: {percent(passed, reached)} of the candidates {let}."


def _score_warnings(run: Run) -> Iterator[str]:
    """Scores of a streaming rule that are nearly the same for every record: chance decides then."""
    for arm in run.arms:
        stream = find_method(arm.method).streaming if arm.method in METHODS else None
        own = [line.variation for (name, _), line in run.adaptations.items() if name == arm.name]
        told = [variation for variation in own if variation]
        if stream is None or stream.replace != "scores" or not told:
            continue
        for place, (score, title) in enumerate(SCORE_TITLES.items()):
            mean = float(np.mean([variation[place] for variation in told]))
            if score in stream.scores and mean < LEAST_VARIATION:
                yield (
                    f"{arm.name}: the {title} hardly varies over the streams (coefficient of "
                    f"variation {mean:.1g}, below {LEAST_VARIATION:g}): rounding decides who wins "
                    "in it. Try another stream.entropy, or read the other scores' arms."
                )


def _nli_warnings(run: Run) -> Iterator[str]:
    accuracy = nli_accuracy(run)
    if run.augmentations and accuracy is not None and accuracy < WEAK_NLI:
        yield f"The NLI model is right on {percent(accuracy, 1)} of held-out pairs only."


def _script_warnings(run: Run) -> Iterator[str]:
    """Gold answers in a script of which LaMP's ROUGE sees next to nothing."""
    if run.task.kind != "text":
        return
    sums = [user.sums for arm in run.arms for user in scored_users(run, arm.name).values()]
    untold = sum(bool(np.isnan(own[metrics.UNICODE_COUNT])) for own in sums)
    if untold:
        yield (
            f"{percent(untold, len(sums))} of the users' scores come without those on Unicode "
            "tokens, as coarse numbers are one score per user. ROUGE as LaMP computes it sees a-z "
            "and 0-9 only: it says little where a user writes in another script than Latin."
        )
    unseen = int(sum(np.nan_to_num(own[metrics.UNICODE_COUNT]) for own in sums))
    if unseen:
        queries = int(sum(own[metrics.QUERY_COUNT] for own in sums))
        yield (
            f"Under half of the letters of {percent(unseen, queries)} of the gold answers are "
            "a-z: ROUGE as LaMP computes it sees a-z and 0-9 only and says little there. ROUGE-1 "
            'on Unicode tokens stands under "Not in LaMP".'
        )
