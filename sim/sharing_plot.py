"""The picture of what sharing brings: score against ratio by group, gain against records shared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lamp import metrics
from sim.plots import DARK, STYLE
from sim.results import Results
from sim.sharing import EVERYONE, REFERENCE, Share, shares
from sim.statistics import Difference, Estimate
from sim.tables import LOWER_IS_BETTER, metric_title

METHOD = "cdcda"
FEWEST_RATIOS = 2
GROUP_LOOKS = (("#0072B2", "o"), ("#E69F00", "s"), ("#009E73", "D"), ("#CC79A7", "^"))
EVERYONE_LOOK = ("#000000", "P")


def sharing_figure(results: Results) -> Figure | None:
    """Draw :data:`METHOD` at its ratios, one line per group; None with fewer than two ratios."""
    run = results.runs[0]
    found = [
        share for share in shares(run, results.resampling) if share.arm.method == METHOD
        and share.arm.ratio is not None
    ]  # fmt: skip
    if len({share.arm.ratio for share in found}) < FEWEST_RATIOS:
        return None
    name = metrics.headline(run.task)[0]
    better = "lower" if name in LOWER_IS_BETTER else "higher"
    gains = any(share.gain for share in found)
    with rc_context(STYLE):
        figure = Figure(figsize=(11.0 if gains else 6.0, 4.8), layout="constrained")
        axes = figure.subplots(1, 2 if gains else 1, squeeze=False)[0]
        for group, look in _looks(found).items():
            own = [share for share in found if share.group == group]
            _draw(axes[0], [_ratio(share) for share in own], [s.score for s in own], group, look)
            if gains:
                _draw(axes[1], [s.records for s in own], [s.gain for s in own], group, look)
        axes[0].set_xlabel("share ratio that the server asks for")
        axes[0].set_ylabel(f"{metric_title(name)} ({better} is better)")
        axes[0].set_title(f"{METHOD}, {results.resampling.level} intervals over a group's users")
        if gains:
            axes[1].axhline(0, color=DARK, linewidth=1)
            axes[1].set_xlabel("records shared per user, mean of the group")
            axes[1].set_ylabel(f"{metric_title(name)} minus {REFERENCE}")
            axes[1].set_title("gain over training on the own records alone")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4)
        figure.suptitle(f"{run.task.title}, {run.world}: what sharing brings")
    return figure


def _looks(found: Sequence[Share]) -> dict[str, tuple[str, str]]:
    named = [group for group in dict.fromkeys(share.group for share in found) if group != EVERYONE]
    looks = {group: GROUP_LOOKS[place % len(GROUP_LOOKS)] for place, group in enumerate(named)}
    if any(share.group == EVERYONE for share in found):
        looks[EVERYONE] = EVERYONE_LOOK
    return looks


def _ratio(share: Share) -> float:
    return share.arm.ratio or 0.0


def _draw(
    axis: Axes,
    places: Sequence[float],
    estimates: Sequence[Estimate | Difference | None],
    group: str,
    look: tuple[str, str],
) -> None:
    known = [(x, each) for x, each in zip(places, estimates, strict=True) if each is not None]
    if not known:
        return
    colour, marker = look
    x = np.array([place for place, _ in known])
    y = np.array([each.value for _, each in known])
    style: dict[str, Any] = {"color": colour, "marker": marker, "linewidth": 2, "markersize": 5}
    axis.plot(x, y, label=group, **style)
    ends = [(each.low, each.high) for _, each in known]
    if all(low is not None and high is not None for low, high in ends):
        low, high = np.array(ends, dtype=float).T
        axis.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)
