"""Tables of the augmentation: what was shared, generated, let through by each filter, and kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from sim.report.run_records import ArmName, Augmentation, Run
from sim.report.tables import NOT_AVAILABLE, Cell, Table, count, make_table, number, percent
from strategy import filters, parsing, prompting
from strategy.augmentation import NO_REPLY
from strategy.candidates import NOT_IN_FILE
from strategy.judges import EMBEDDING
from strategy.methods import METHODS

NOT_ASKED = "-"
READING = "reading"  # the gates before the filters: whether there is a pair,
ALIGNED = prompting.LABEL_NOT_ALIGNED  # and whether its label is the shared one
FILTER_TITLES = {filters.SEMANTIC: "SCF", filters.DIVERSITY: "TDF", filters.LENGTH: "LSF"}
BY_COSINE = "SCF (cosine)"  # where no NLI model judges semantic consistency
READING_TITLES = {
    NO_REPLY: "no reply",
    NOT_IN_FILE: "not in the file",
    parsing.NO_INPUT: "no input",
    parsing.NO_RESPONSE: "no response",
    parsing.EMPTY_INPUT: "empty input",
    parsing.CUT_OFF: "cut off",
    parsing.UNCLOSED: "bracket never closed",
    parsing.UNCLEAR: "not clear where a text ends",
    parsing.LABEL_OUTSIDE_SET: "label outside the set",
}


def kept_table(run: Run) -> Table | None:
    """Per arm: what was shared, generated, readable, let through by each filter, and kept."""
    rows = []
    others = other_reasons(run)
    for arm in run.arms:
        lines = augmentations_of(run, arm.name)
        if not lines:
            continue
        total = total_of(lines)
        rows.append(
            [
                arm.name,
                str(sum(line.shared > 0 for line in lines)),
                count(total.shared),
                count(total.generated),
                *(
                    _passed(run, arm, gate, *numbers)
                    for gate, *numbers in gates(total, others)
                    if gate != ALIGNED or run.task.pair_labels
                ),
                count(total.kept),
                percent(total.kept, total.generated),
            ]
        )
    passes = [
        "Readable",
        *(["Same label"] if run.task.pair_labels else []),
        *(f"Pass {reason_title(run, name)}" for name in (*FILTER_TITLES, *others)),
    ]
    head = ["Method", "Users who share", "Shared", "Generated", *passes, "Kept", "Kept share"]
    return make_table(head, rows) if rows else None


def _passed(run: Run, arm: ArmName, gate: str, reached: int, passed: int) -> str:
    """Part that a gate lets pass; "-" for filters that the arm does not ask."""
    return percent(passed, reached) if asks(run, arm, gate) else NOT_ASKED


def asks(run: Run, arm: ArmName, gate: str) -> bool:
    """Whether an arm's candidates go through a gate: thresholds or the best share, never both."""
    if gate in (READING, ALIGNED):
        return True
    if METHODS[arm.method].choice != "filtered":
        return False
    ranked = dict(arm.thresholds).get("keep_share", run.config.filters.keep_share) is not None
    return not (gate in FILTER_TITLES and ranked) and not (gate == filters.QUANTILE and not ranked)


def rejections_table(run: Run) -> Table | None:
    """Per arm and reason: rejected candidates and their share of all that were generated."""
    arms = [arm for arm in run.arms if augmentations_of(run, arm.name)]
    totals = {arm.name: total_of(augmentations_of(run, arm.name)) for arm in arms}
    reasons = (*READING_TITLES, ALIGNED, *FILTER_TITLES, *other_reasons(run), filters.NOT_DRAWN)
    rows: list[list[Cell | str]] = [
        [
            reason_title(run, reason),
            *(_rejected_cell(total, reason) for total in totals.values()),
        ]
        for reason in reasons
        if any(total.rejected.get(reason) for total in totals.values())
    ]
    return make_table(["Rejected because of", *totals], rows) if rows else None


def writers_table(run: Run) -> Table | None:
    """Per arm: how many kept pairs each cloud model wrote; None where one wrote them all."""
    kept: dict[str, Counter[str]] = {}
    for (arm, _), line in run.augmentations.items():
        kept.setdefault(arm, Counter()).update(line.kept_by)
    names = sorted({name for counts in kept.values() for name in counts})
    rows = [[arm, *(count(counts[name]) for name in names)] for arm, counts in kept.items()]
    return make_table(("Kept pairs by", *names), rows) if len(names) > 1 else None


def diagnosis_table(run: Run) -> Table | None:
    """Per arm: variety of shared, kept and rejected texts, and what is true of them."""
    rows: list[list[Cell | str]] = [
        [
            each.arm,
            each.group,
            count(each.texts),
            number(each.distinct1),
            number(each.distinct2),
            number(each.self_rouge),
            number(each.source_rouge),
            _share(each.same_facts),
            _share(each.right_label),
        ]
        for each in run.diagnoses
        if each.texts
    ]
    head = ("Method", "Texts", "Number", "distinct-1", "distinct-2", "Self-ROUGE-L")
    columns = (*head, "ROUGE-L to source", "Same facts", "Label right")
    return make_table(columns, rows, left=2) if rows else None


def _share(value: float | None) -> str:
    return NOT_AVAILABLE if value is None else percent(value, 1)


def _rejected_cell(total: Augmentation, reason: str) -> Cell:
    rejected = total.rejected.get(reason, 0)
    return Cell(count(rejected), f"({percent(rejected, total.generated)})")


def augmentations_of(run: Run, arm: str) -> list[Augmentation]:
    """What became of each user's shared records in one arm."""
    return [line for (name, _), line in run.augmentations.items() if name == arm]


def total_of(lines: Sequence[Augmentation]) -> Augmentation:
    """Add several users of one arm up."""
    rejected: Counter[str] = Counter()
    for line in lines:
        rejected.update(line.rejected)
    return Augmentation(
        arm=lines[0].arm,
        user="",
        shared=sum(line.shared for line in lines),
        generated=sum(line.generated for line in lines),
        kept=sum(line.kept for line in lines),
        rejected=dict(rejected),
    )


def other_reasons(run: Run) -> list[str]:
    """Reasons of filters beyond the paper's three; they stand behind these."""
    known = {*READING_TITLES, ALIGNED, *FILTER_TITLES, filters.NOT_DRAWN}
    named = {reason for line in run.augmentations.values() for reason in line.rejected}
    return sorted(named - known)


def reason_title(run: Run, reason: str) -> str:
    """Title of a rejection's reason."""
    titles = {
        **FILTER_TITLES,
        **READING_TITLES,
        ALIGNED: "label not the shared one",
        filters.NOT_DRAWN: "not drawn",
        filters.QUANTILE: "best share",
    }
    if run.config.filters.judge == EMBEDDING:
        titles[filters.SEMANTIC] = BY_COSINE
    return titles.get(reason, reason)


def gates(total: Augmentation, others: Iterable[str]) -> Iterator[tuple[str, int, int]]:
    """Yield (gate, candidates that reached it, candidates that passed), in the filters' order."""
    reached = total.generated
    passed = reached - sum(total.rejected.get(reason, 0) for reason in READING_TITLES)
    yield READING, reached, passed
    for reason in (ALIGNED, *FILTER_TITLES, *others):
        reached, passed = passed, passed - total.rejected.get(reason, 0)
        yield reason, reached, passed


def waterfall(run: Run) -> list[tuple[str, str, int]]:
    """Per arm the candidates that are left: all, then behind each gate that the arm asks."""
    others, rows = other_reasons(run), []
    for arm in run.arms:
        if not (lines := augmentations_of(run, arm.name)):
            continue
        total = total_of(lines)
        rows.append((arm.name, "generated", total.generated))
        for gate, _, passed in gates(total, others):
            if asks(run, arm, gate) and (gate != ALIGNED or run.task.pair_labels):
                title = {READING: "readable", ALIGNED: "same label"}.get(gate)
                rows.append((arm.name, title or reason_title(run, gate), passed))
    return rows
