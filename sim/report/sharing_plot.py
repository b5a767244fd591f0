"""The picture of what sharing brings: score against ratio by group, gain against records shared.

Where adapters were trained with DP-SGD too, a further panel shows their score against epsilon.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lamp import metrics
from sim.report.pictures import STYLE
from sim.report.plots import DARK
from sim.report.pooling import ArmResult, Results
from sim.report.sharing import EVERYONE, Share, shares
from sim.report.tables import LOWER_IS_BETTER, metric_title
from sim.statistics import Difference, Estimate
from strategy.methods import METHODS, compared, studied

FEWEST_RATIOS = 2
GROUP_LOOKS = (("#0072B2", "o"), ("#E69F00", "s"), ("#009E73", "D"), ("#CC79A7", "^"))
EVERYONE_LOOK = ("#000000", "P")


def sharing_figure(results: Results) -> Figure | None:
    """Draw the studied method at its ratios, a line per group; None with fewer than two ratios."""
    run = results.runs[0]
    found = [
        share for share in shares(run, results.resampling) if share.arm.method == studied()
        and share.arm.ratio is not None
    ]  # fmt: skip
    if len({share.arm.ratio for share in found}) < FEWEST_RATIOS:
        return None
    name = metrics.headline(run.task)[0]
    better = "lower" if name in LOWER_IS_BETTER else "higher"
    gains = any(share.gain for share in found)
    private = _private_arms(results)
    panels = 1 + gains + bool(private)
    with rc_context(STYLE):
        figure = Figure(figsize=(1.0 + 5.0 * panels, 4.8), layout="constrained")
        axes = figure.subplots(1, panels, squeeze=False)[0]
        if private:
            _draw_epsilons(axes[-1], results, private, name)
        for group, look in _looks(found).items():
            own = [share for share in found if share.group == group]
            _draw(axes[0], [_ratio(share) for share in own], [s.score for s in own], group, look)
            if gains:
                _draw(axes[1], [s.records for s in own], [s.gain for s in own], group, look)
        axes[0].set_xlabel("share ratio that the server asks for")
        axes[0].set_ylabel(f"{metric_title(name)} ({better} is better)")
        axes[0].set_title(f"{studied()}, {results.resampling.level} intervals over a group's users")
        if gains:
            axes[1].axhline(0, color=DARK, linewidth=1)
            axes[1].set_xlabel("records shared per user, mean of the group")
            axes[1].set_ylabel(f"{metric_title(name)} minus {compared()[0]}")
            axes[1].set_title("gain over training on the own records alone")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4)
        figure.suptitle(f"{run.task.title}, {run.world}: what sharing brings")
    return figure


def _private_arms(results: Results) -> dict[str, list[tuple[float, ArmResult]]]:
    """Per method with DP-SGD its arms by epsilon, smallest first."""
    found: dict[str, list[tuple[float, ArmResult]]] = {}
    for result in results.arms:
        method = METHODS.get(result.arm.method)
        if method is not None and method.private and result.metrics:
            epsilon = _epsilon(result, results.runs[0].config.baselines.dp_epsilons)
            found.setdefault(method.name, []).append((epsilon, result))
    return {method: sorted(arms, key=lambda arm: arm[0]) for method, arms in found.items()}


def _epsilon(result: ArmResult, epsilons: Sequence[float]) -> float:
    """The arm's own epsilon, else the run's only one."""
    return epsilons[0] if result.arm.epsilon is None else result.arm.epsilon


def _draw_epsilons(
    axis: Axes,
    results: Results,
    private: Mapping[str, Sequence[tuple[float, ArmResult]]],
    name: str,
) -> None:
    """Score against epsilon; dashed what the same method scores without DP-SGD."""
    for (method, arms), look in zip(private.items(), (*GROUP_LOOKS, EVERYONE_LOOK), strict=False):
        known = [(epsilon, arm.metrics[name]) for epsilon, arm in arms if name in arm.metrics]
        _draw(axis, [epsilon for epsilon, _ in known], [each for _, each in known], method, look)
        without_noise = METHODS[method].variant_of
        plain = [arm for arm in results.arms if arm.arm.method == without_noise and arm.metrics]
        if plain:
            axis.axhline(plain[-1].metrics[name].value, color=look[0], linestyle="--", linewidth=1)
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter("{x:g}")  # the usual one writes powers in mathematics
    axis.xaxis.set_minor_formatter("")
    axis.set_xlabel("epsilon per record of D_u; dashed: without DP-SGD")
    axis.set_ylabel(metric_title(name))
    axis.set_title("adapters with clipped, noised training")
    axis.legend()


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
