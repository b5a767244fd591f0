"""How one adapter is trained, apart from D_u and from what the message brings, as JSON.

A method differs from another in such a record, never in a message kind or a path of its own.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import lru_cache
from typing import Annotated, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    TypeAdapter,
    ValidationError,
)
from pydantic.dataclasses import dataclass

from conf.errors import ProtocolError
from conf.schema import STRICT, Fraction, StreamConfig
from lamp.dialogue.lexicons import Lexicon

Local = Literal["nothing", "copies", "eda", "own_model", "neighbours"]
Score = Literal["entropy", "domain", "dissimilarity"]
Replace = Literal["scores", "random", "fifo", "k_center"]
ALL_SCORES: tuple[Score, ...] = ("entropy", "domain", "dissimilarity")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Stream:
    """How a device keeps a few records of a stream and trains on them (Qin et al., DAC'24).

    Attributes:
        settings: Buffer, schedule and synthesis.
        replace: How a full buffer makes room.
        scores: Scores that a newcomer must win in, where scores decide.
        synthesis: Whether the device's own model writes similar texts.
        lexicons: Words per domain.
    """

    settings: StreamConfig
    replace: Replace = "scores"
    scores: tuple[Score, ...] = ALL_SCORES
    synthesis: bool = True
    lexicons: tuple[Lexicon, ...] = ()


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Recipe:
    """What a device does besides training on D_u and the kept pairs.

    Attributes:
        local: What the device adds to D_u by itself, made from the records that it would share:
            copies of them, EDA variants, texts of the device's own model, or the records of the
            message's public ones that are nearest to them.
        ratio: Share ratio that the device would be asked for; its policy bounds it as ever.
        k: Copies, variants or neighbours of each such record.
        eda_rate: Share of an input's words that one EDA operation changes.
        thesaurus: Where EDA finds synonyms.
        writing: How the device's own model writes; ``sets`` texts of each such record.
        distillation: Weight of the reverse KL to the teacher's logits in the message.
        epochs: Passes over the records; None takes the settings' own.
        federated: Send the adapter's weights back; start from the message's weights, in round 0
            from weights that are the same for all users.
        round: Round of the federated training.
        epsilon: Train with DP-SGD to this privacy loss per record; None trains without.
        delta: Probability of a larger privacy loss.
        record_clip: Largest gradient norm of one record under DP-SGD.
        folds: Keep the adapter only where cross-validation in so many parts of D_u finds it better
            than M_base; 0 keeps it always.
        stream: Keep and train on a few records of the stream that D_u is; None for all of D_u.
    """

    local: Local = "nothing"
    ratio: Fraction = 1.0
    k: PositiveInt = 1
    eda_rate: Fraction = 0.1
    thesaurus: Literal["wordnet", "world"] = "wordnet"
    writing: StreamConfig | None = None
    distillation: NonNegativeFloat = 0.0
    epochs: PositiveInt | None = None
    federated: bool = False
    round: NonNegativeInt = 0
    epsilon: PositiveFloat | None = None
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-3
    record_clip: PositiveFloat = 1.0
    folds: NonNegativeInt = 0
    stream: Stream | None = None

    def __post_init__(self) -> None:
        """Refuse a device that is to write without being told how, or the reverse."""
        if (self.local == "own_model") != (self.writing is not None):
            raise ValueError("recipe: expected writing with local=own_model and with it alone")

    @property
    def can_wait(self) -> bool:
        """Whether the device may keep the request and train it with others' (no arrays in it)."""
        return (
            not self.federated
            and not self.distillation
            and self.stream is None
            and self.epsilon is None
            and not self.folds
        )


def recipe_to_json(recipe: Recipe) -> str:
    """Write what differs from the plain recipe as compact JSON; "{}" is the plain one."""
    plain = asdict(PLAIN)
    changed = {key: value for key, value in asdict(recipe).items() if value != plain[key]}
    return json.dumps(changed, sort_keys=True, separators=(",", ":"))


@lru_cache(maxsize=64)
def recipe_from_json(text: str) -> Recipe:
    """Read a recipe that came over the wire.

    Raises:
        ProtocolError: If the JSON is broken or a key is unknown or out of bounds.
    """
    try:
        return _ADAPTER.validate_python(json.loads(text))
    except (ValueError, ValidationError) as error:
        raise ProtocolError(f"recipe: expected a Recipe as JSON, got {error}") from error


PLAIN = Recipe()
_ADAPTER = TypeAdapter(Recipe)
