"""Whether an arm put its method to the test at all.

An arm whose users hardly got a synthetic pair is its control under another name, and filters that
let through far fewer or far more than the paper's hardly chose. Whatever such an arm scores shows
neither an effect of the method nor the absence of one.
"""

from __future__ import annotations

from sim.report.run_records import ArmName, Run
from strategy.methods import METHODS

LABEL = "method not exercised"
FEWEST_KEPT = 1.0  # synthetic pairs per user
KEPT_SHARES = (0.03, 0.33)  # of the generated pairs; least and most of the paper's Table 4
_WRITTEN = {"own_model": "own texts", "neighbours": "public records"}


def why_not(run: Run, arm: ArmName) -> str | None:
    """Return why an arm of a run did not exercise its method; None where it did, or has no cloud.

    An arm that nobody shared anything in (share ratio 0) is a control and counts as exercised. How
    much is kept is not judged where a method keeps all that could be read.
    """
    if (reason := _unwritten(run, arm)) is not None:
        return reason
    lines = [line for (name, _), line in run.augmentations.items() if name == arm.name]
    generated, kept = sum(line.generated for line in lines), sum(line.kept for line in lines)
    if not generated:
        return None
    if kept < FEWEST_KEPT * len(lines):
        return f"{kept / len(lines):.2g} kept pairs per user, fewer than {FEWEST_KEPT:g}"
    least, most = KEPT_SHARES
    share = kept / generated
    if METHODS[arm.method].choice == "all" or least <= share <= most:
        return None
    return (
        f"{100 * share:.1f}% of the candidates were kept, outside the {100 * least:g}% to "
        f"{100 * most:g}% of the paper's Table 4"
    )


def _unwritten(run: Run, arm: ArmName) -> str | None:
    """Why an arm whose devices train on texts of their own or of others has hardly any of them."""
    method = METHODS.get(arm.method)
    added = [line.synthetic for (name, _), line in run.adaptations.items() if name == arm.name]
    if method is None or not added or arm.ratio == 0:
        return None
    what = _WRITTEN.get(method.local) or ("texts of other users" if method.crosses_users else "")
    each = sum(added) / len(added)
    if not what or each >= FEWEST_KEPT:
        return None
    return f"{each:.2g} {what} per user, fewer than {FEWEST_KEPT:g}"
