"""The methods as small records, and the arms of an experiment: method x share ratio.

A method says what its devices train on; no method has a path of its own through the strategy.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from conf.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Method:
    """One method of DESIGN's table.

    Attributes:
        name: Name in configuration, tables and ledger.
        adapts: Whether each device trains an adapter; without one M_base answers.
        downloads: Whether the devices share records and train on the kept pairs too.
        matches_steps: Train on D_u alone, as many steps as with the kept pairs.
        about: One line for tables and help.
    """

    name: str
    adapts: bool
    downloads: bool
    matches_steps: bool
    about: str

    @property
    def needs_augmentation(self) -> bool:
        """Whether the cloud has to augment for this method (for its data or its step count)."""
        return self.downloads or self.matches_steps


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("device", False, False, False, "M_base, the small model tuned on public users"),
        Method("direct_ft", True, False, False, "adapter on D_u only"),
        Method("direct_ft_matched", True, False, True, "direct_ft with as many steps as cdcda"),
        Method("cdcda", True, True, False, "adapter on D_u and the kept synthetic pairs"),
    )
}


@dataclass(frozen=True, slots=True)
class Arm:
    """One thing that is trained and scored.

    Attributes:
        name: Unique within the experiment, e.g. "cdcda" or "cdcda@0.5".
        method: What the devices do.
        ratio: Share ratio that the server asks for; None asks for all that each user allows.
    """

    name: str
    method: Method
    ratio: float | None

    @property
    def asked_ratio(self) -> float:
        """The ratio in the share request."""
        return 1.0 if self.ratio is None else self.ratio


def find_method(name: str) -> Method:
    """Look a method up.

    Raises:
        ConfigError: If there is none of that name; the message names the nearest.
    """
    if name not in METHODS:
        close = difflib.get_close_matches(name, METHODS, n=1)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        raise ConfigError(f"methods: unknown '{name}'.{hint} Known: {', '.join(METHODS)}")
    return METHODS[name]


def make_arms(methods: Sequence[str], ratios: Sequence[float] | None) -> tuple[Arm, ...]:
    """Expand methods and ratios; only methods that depend on the ratio get one arm for each.

    Raises:
        ConfigError: If a method is unknown or named twice, or none is named.
    """
    if not methods:
        raise ConfigError(f"methods: expected at least one of {', '.join(METHODS)}")
    if len(set(methods)) != len(methods):
        raise ConfigError(f"methods: each at most once, got {', '.join(methods)}")
    arms: list[Arm] = []
    for method in map(find_method, methods):
        if method.needs_augmentation and ratios is not None:
            arms += [Arm(f"{method.name}@{ratio:g}", method, ratio) for ratio in ratios]
        else:
            arms.append(Arm(method.name, method, None))
    return tuple(arms)
