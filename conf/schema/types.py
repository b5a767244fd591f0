"""Types that several groups share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

# validate_default: a default goes through the same checks and conversions as a given value.
STRICT = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False)

Fraction = Annotated[float, Field(ge=0, le=1)]
PositiveShare = Annotated[float, Field(gt=0, le=1)]
Dtype = Literal["float32", "bfloat16"]
Select = Literal["random", "recent", "oldest", "sensitive", "dac24"]
RedactedField = Literal["input", "response"]
AnswerRuntime = Literal["transformers", "llamacpp"]
GgufWeights = Literal["f16", "q8_0", "q4_0", "q4_k_m"]
TuneStage = Literal["base", "retrieval", "cloud", "adapters", "augmentation"]
