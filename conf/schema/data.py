"""What is read: the task, dialogues, the miniature world, time."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass

from conf.schema.types import STRICT, Fraction


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TaskConfig:
    """Which LaMP task, and how its profile items become training pairs.

    Attributes:
        name: Task, one of ``lamp/tasks.py`` or of a plugin; ``lamp_6`` needs a licensed corpus and
            is not supported. ``dialogue`` answers what a user asks.
        pair: How a profile item becomes a training pair; only ``lamp_1`` has more than one way.
        max_new_tokens: Longest answer, in tokens.
        max_field_words: Each text field is cut to this many words before it enters a prompt.
    """

    name: str
    pair: Literal["default", "abstract_to_title", "title_to_abstract", "citation"] = "default"
    max_new_tokens: PositiveInt
    max_field_words: PositiveInt = 768


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DialogueConfig:
    """How ``task=dialogue`` splits files of dialogues over users.

    Attributes:
        records: Dialogues of each user's stream.
        queries: Held-out dialogues of each user.
        focus: Share of a user's dialogues that are of the user's own domain; the others are drawn
            from all domains.
        max_answer_words: Dialogues with a longer answer are left out, and counted.
        seed: Seed of the split, apart from the run's seed: the same users under every seed.
    """

    records: PositiveInt = 100
    queries: PositiveInt = 10
    focus: Fraction = 0.8
    max_answer_words: PositiveInt = 512
    seed: int = 2024


@dataclass(frozen=True, kw_only=True, config=STRICT)
class WorldConfig:
    """The miniature world that stands in for LaMP when nothing can be downloaded.

    Attributes:
        population: Users in the world; the target users are the ones with the longest histories.
        queries_per_user: Scored queries of each user.
        history_min: Shortest history, in records.
        history_max: Longest history, in records; lengths are skewed towards the short end.
        drift: How likely each trait of a user (a taste, a favourite word, a habit) is another one
            in the next year; a year has twelve records. 0: nobody ever changes.
        seed: Seed of the world, apart from the run's seed: the same world under every seed.
    """

    population: PositiveInt = 300
    queries_per_user: Annotated[int, Field(ge=5)] = 10
    history_min: PositiveInt = 8
    history_max: PositiveInt = 48
    drift: Fraction = 0.0
    seed: int = 2024


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DriftConfig:
    """Train on what precedes a date, score later records by their age (sim/report/drift.py).

    Attributes:
        cut: Date YYYY-MM-DD that cuts every history: D_u before it, queries after it. None leaves
            the data as they are.
        years: Years after the cut whose records become queries; target users have some in each.
        refresh: 0 trains once at the cut and scores all these years; n trains anew on everything
            before the start of year n (0 is the first one) and scores that year alone.
    """

    cut: str | None = None
    years: PositiveInt = 4
    refresh: NonNegativeInt = 0
