"""What a method's devices do besides training on D_u and on what the message brings.

A method holds one of these functions; it makes the record that crosses the wire
(:class:`protocol.recipe.Recipe`) from the arm's settings and the config groups.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from conf.schema import BaselinesConfig, StreamConfig
from lamp.dialogue.lexicons import Lexicon
from protocol.recipe import PLAIN, Recipe, Stream

Thesaurus = Literal["wordnet", "world"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeInputs:
    """What a recipe may depend on.

    Attributes:
        baselines: Settings of the baselines.
        stream: Settings of devices that see their records as a stream.
        ratio: Share ratio of the arm.
        k: Samples per shared record of the arm.
        epsilon: Privacy loss of the arm; None takes the first configured one.
        round: Round of a federated training.
        thesaurus: Where EDA finds synonyms.
        lexicons: Words per domain, for streams.
    """

    baselines: BaselinesConfig = field(default_factory=BaselinesConfig)
    stream: StreamConfig = field(default_factory=StreamConfig)
    ratio: float = 1.0
    k: int = 1
    epsilon: float | None = None
    round: int = 0
    thesaurus: Thesaurus = "world"
    lexicons: tuple[Lexicon, ...] = ()


MakeRecipe = Callable[[RecipeInputs], Recipe]


def plain(_: RecipeInputs) -> Recipe:
    """Nothing besides."""
    return PLAIN


def copies(inputs: RecipeInputs) -> Recipe:
    """K copies of each record that the user would share."""
    return Recipe(local="copies", ratio=inputs.ratio, k=inputs.k)


def eda(inputs: RecipeInputs) -> Recipe:
    """K EDA variants of each record that the user would share."""
    return Recipe(
        local="eda",
        ratio=inputs.ratio,
        k=inputs.k,
        eda_rate=inputs.baselines.eda_rate,
        thesaurus=inputs.thesaurus,
    )


def neighbours(inputs: RecipeInputs) -> Recipe:
    """K nearest public records of each record that the user would share."""
    return Recipe(local="neighbours", ratio=inputs.ratio, k=inputs.k)


def self_written(inputs: RecipeInputs) -> Recipe:
    """K texts of the device's own model on each record that the user would share."""
    writing = replace(inputs.stream, sets=inputs.k)
    return Recipe(local="own_model", ratio=inputs.ratio, k=inputs.k, writing=writing)


def distilled(inputs: RecipeInputs) -> Recipe:
    """Reverse KL to the teacher's logits."""
    return Recipe(distillation=inputs.baselines.rkd_weight)


def averaged(inputs: RecipeInputs) -> Recipe:
    """One round of FedAvg: a few epochs from the server's weights."""
    return Recipe(federated=True, round=inputs.round, epochs=inputs.baselines.fedavg_epochs)


def noised(inputs: RecipeInputs) -> Recipe:
    """DP-SGD."""
    return Recipe(
        epsilon=inputs.epsilon or inputs.baselines.dp_epsilons[0],
        delta=inputs.baselines.dp_delta,
        record_clip=inputs.baselines.dp_clip,
    )


def gated(inputs: RecipeInputs) -> Recipe:
    """An adapter that the device keeps only where cross-validation finds it better than M_base."""
    return Recipe(folds=inputs.baselines.gate_folds)


def streamed(**differing: Any) -> MakeRecipe:
    """A few records of a stream (Qin et al., DAC'24); ``differing`` as in ``Stream``."""

    def make(inputs: RecipeInputs) -> Recipe:
        return Recipe(stream=Stream(settings=inputs.stream, lexicons=inputs.lexicons, **differing))

    return make


def thesaurus_of(baselines: BaselinesConfig, data: str) -> Thesaurus:
    """Where EDA finds synonyms: as configured, by default as the data demand."""
    if baselines.thesaurus != "auto":
        return baselines.thesaurus
    return "world" if data == "miniature" else "wordnet"
