"""The comparisons that an experiment declared before it ran, and Holm's correction over them.

All other comparisons are exploratory: they are shown with their intervals, and never in bold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sim.report.run_records import ArmName

Pair = tuple[str, str]


def primary_pairs(contrasts: Sequence[str], arms: Sequence[ArmName]) -> list[Pair]:
    """The arms that the declared contrasts are about, as far as the run has them.

    Of a method with several arms the one with the largest share ratio is meant, of several of these
    the first.

    Args:
        contrasts: Declared as "method - method".
        arms: The arms of the run.
    """
    found = []
    for contrast in contrasts:
        first, _, second = contrast.partition(" - ")
        pair = [_meant(method, arms) for method in (first, second)]
        if pair[0] and pair[1]:
            found.append((pair[0].name, pair[1].name))
    return found


def without_method(contrasts: Sequence[str], arms: Sequence[ArmName]) -> str:
    """One sentence on the declared contrasts that lack a method in the run; "" where none does."""
    present = {arm.method for arm in arms}
    absent = {
        contrast: [method for method in contrast.split(" - ") if method not in present]
        for contrast in contrasts
    }
    named = [
        f"{' against '.join(contrast.split(' - '))} (no {', no '.join(methods)})"
        for contrast, methods in absent.items()
        if methods
    ]
    head = "Declared, but not tested, as this run lacks a method"
    return f"{head}: {'; '.join(named)}." if named else ""


def _meant(method: str, arms: Sequence[ArmName]) -> ArmName | None:
    own = [arm for arm in arms if arm.method == method]
    return max(own, key=lambda arm: 1.0 if arm.ratio is None else arm.ratio, default=None)


def holm(p_values: Mapping[Pair, float]) -> dict[Pair, float]:
    """Holm's step-down adjusted p values (Holm, Scand. J. Statist. 6, 1979)."""
    adjusted, least = {}, 0.0
    ordered = sorted(p_values, key=lambda pair: p_values[pair])
    for place, pair in enumerate(ordered):
        least = max(least, min(1.0, (len(ordered) - place) * p_values[pair]))
        adjusted[pair] = least
    return adjusted
