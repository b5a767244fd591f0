"""The typed configuration: every key, its default, its bounds. A misspelt key is an error.

Hydra composes the YAML groups beside this file; :mod:`conf.compose` turns the result into these
frozen records. Defaults live here or, where a preset differs from another, in its YAML: never in a
function signature and never in both. A component receives its own group, never all of ``Config``.
Values that the papers leave out are listed with source and confidence in docs/assumptions.md.
"""

from conf.schema.cloud import (
    AugmenterConfig,
    AugmenterTuningConfig,
    EndpointConfig,
    FiltersConfig,
    SamplingConfig,
    ThresholdsConfig,
)
from conf.schema.data import DialogueConfig, DriftConfig, TaskConfig, WorldConfig
from conf.schema.machines import (
    DeviceProfile,
    DevicesConfig,
    EngineConfig,
    PathsConfig,
    ResourcesConfig,
)
from conf.schema.models import (
    BuildConfig,
    CausalModelConfig,
    ModelConfig,
    NliHeadConfig,
    NliModelConfig,
    TransformerSize,
)
from conf.schema.privacy import PrivacyConfig, PrivacyGroup
from conf.schema.run import Config
from conf.schema.training import (
    BaselinesConfig,
    EvaluationConfig,
    QLoraConfig,
    StreamConfig,
    TuneConfig,
)
from conf.schema.types import (
    STRICT,
    AnswerRuntime,
    Dtype,
    Fraction,
    GgufWeights,
    PositiveShare,
    RedactedField,
    Select,
    TuneStage,
)

__all__ = [
    "STRICT",
    "AnswerRuntime",
    "AugmenterConfig",
    "AugmenterTuningConfig",
    "BaselinesConfig",
    "BuildConfig",
    "CausalModelConfig",
    "Config",
    "DeviceProfile",
    "DevicesConfig",
    "DialogueConfig",
    "DriftConfig",
    "Dtype",
    "EndpointConfig",
    "EngineConfig",
    "EvaluationConfig",
    "FiltersConfig",
    "Fraction",
    "GgufWeights",
    "ModelConfig",
    "NliHeadConfig",
    "NliModelConfig",
    "PathsConfig",
    "PositiveShare",
    "PrivacyConfig",
    "PrivacyGroup",
    "QLoraConfig",
    "RedactedField",
    "ResourcesConfig",
    "SamplingConfig",
    "Select",
    "StreamConfig",
    "TaskConfig",
    "ThresholdsConfig",
    "TransformerSize",
    "TuneConfig",
    "TuneStage",
    "WorldConfig",
]
