"""What users let go."""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeInt, PositiveFloat
from pydantic.dataclasses import dataclass

from conf.schema.types import STRICT, Fraction, RedactedField, Select


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PrivacyGroup:
    """Users with one attitude: ``share`` of all users, their ratios uniform in [low, high]."""

    name: str
    share: Fraction
    low: Fraction
    high: Fraction


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PrivacyConfig:
    """How the share ratios of the simulated users are drawn at set-up.

    Attributes:
        kind: Distribution of the ratios.
        ratio: The one ratio of ``fixed``.
        low: Lower end of ``uniform``.
        high: Upper end of ``uniform``.
        alpha: First parameter of ``beta``.
        beta: Second parameter of ``beta``.
        groups: Groups of ``mixed``; their shares add up to 1.
        csv: File of ``per_user`` with the columns user_id, ratio.
        select: Which records are shared first: "random", "recent" or "oldest" by date, the least
            "sensitive" ones, so that the most sensitive stay at home (clients/sensitivity.py), or
            by the scores of the "dac24" methods (clients/dac24/usefulness.py).
        redact: Fields in which the device redacts sensitive spans before a record leaves.
        canaries: Random records that the simulation adds to each user's history, to measure what
            leaks of shared and of unshared records; 0 measures nothing.
        canary_words: What they are made of: "random" letters that no model knows, or words of the
            "public" users, which a cloud model can write and an adapter can memorise.
    """

    kind: Literal["fixed", "uniform", "beta", "mixed", "per_user"]
    ratio: Fraction = 1.0
    low: Fraction = 0.0
    high: Fraction = 1.0
    alpha: PositiveFloat = 2.0
    beta: PositiveFloat = 2.0
    groups: tuple[PrivacyGroup, ...] = ()
    csv: str | None = None
    select: Select = "random"
    redact: tuple[RedactedField, ...] = ()
    canaries: NonNegativeInt = 0
    canary_words: Literal["random", "public"] = "random"
