"""One run: every group, and what belongs to none."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass

from conf.schema.cloud import AugmenterConfig, FiltersConfig, ThresholdsConfig
from conf.schema.data import DialogueConfig, DriftConfig, TaskConfig, WorldConfig
from conf.schema.machines import DevicesConfig, EngineConfig, PathsConfig, ResourcesConfig
from conf.schema.models import ModelConfig
from conf.schema.privacy import PrivacyConfig
from conf.schema.training import (
    BaselinesConfig,
    EvaluationConfig,
    QLoraConfig,
    StreamConfig,
    TuneConfig,
)
from conf.schema.types import STRICT, Fraction


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Config:
    """One run.

    Attributes:
        data: "miniature", or a folder with LaMP_n/<part>_questions.json and _outputs.json; for
            task=dialogue a folder or file of dialogues.
        files: Form of the files in ``data``: "lamp" as the official server has them, or "oppu" as
            Tan et al. (EMNLP 2024) publish them, which say themselves who is a target user.
        part: Which official file: train, dev or test.
        split: "time" groups questions by user_id and needs dates; "user" makes each question a
            user where there is no user_id; "auto" takes "time" where the files allow it. "holdout"
            asks held-out records of each user, and none of the files' own questions.
        holdout: Share of each user's records that split=holdout asks: the newest where every record
            has a date, else drawn from ``split_seed``.
        max_records: Records of D_u at most, of public users too: the newest, or drawn from
            ``split_seed``; None for all. Who is a target user does not depend on it.
        target_records: Records of a target user's D_u at most, chosen as by max_records and after
            it; public users keep theirs, so M_base and what is asked stay. None for all.
        max_queries: Queries of each user at most: the newest of held-out records, the first of
            the files' own; None for all.
        split_seed: Seed of what is held out and left out, apart from the run's seed: the same
            queries under every seed.
        users: Target users: the longest histories, ties by id.
        skip_users: Leave out so many of the longest histories first; for choosing
            hyperparameters on users that are no target users.
        methods: Names of the methods to compare.
        ratios: Share ratios that the server asks for, one arm each; None asks for all that each
            user allows.
        ks: Numbers of samples k to compare, one arm each; None takes ``augmenter.k``.
        thresholds: Filter thresholds to compare, one arm each; the generations are the same.
        sweep: Words that make several runs of this experiment, e.g. ``task=lamp_2,lamp_7``; a key
            that the command line names is left out.
        layout: How several runs are shown together: as a table or figure of the paper, or "plain".
        seed: Root seed.
        name: Name of the run folder; None makes one from date and task.
        contrasts: Primary comparisons, declared before the run as "method - method": they alone are
            tested, with Holm's correction over those that a run has; all others are exploratory.
        permutations: Permutations of each of these tests.
        trackers: Where live metrics go besides the run folder.
        plugins: Python files of your own that register methods or tasks (docs/own-data.md).
    """

    task: TaskConfig
    model: ModelConfig
    world: WorldConfig
    privacy: PrivacyConfig
    augmenter: AugmenterConfig
    filters: FiltersConfig
    qlora: QLoraConfig
    evaluation: EvaluationConfig
    resources: ResourcesConfig
    paths: PathsConfig
    baselines: BaselinesConfig
    devices: DevicesConfig
    engine: EngineConfig = field(default_factory=EngineConfig)
    stream: StreamConfig = field(default_factory=StreamConfig)
    dialogue: DialogueConfig = field(default_factory=DialogueConfig)
    drift: DriftConfig = field(default_factory=DriftConfig)
    tune: TuneConfig = field(default_factory=TuneConfig)
    data: str = "miniature"
    files: Literal["lamp", "oppu"] = "lamp"
    part: Literal["train", "dev", "test"] = "dev"
    split: Literal["auto", "time", "user", "holdout"] = "auto"
    holdout: Annotated[float, Field(gt=0, lt=1)] = 0.3
    max_records: PositiveInt | None = None
    target_records: PositiveInt | None = None
    max_queries: PositiveInt | None = None
    split_seed: int = 2024
    users: PositiveInt = 20
    skip_users: NonNegativeInt = 0
    methods: tuple[str, ...] = ("device", "direct_ft", "direct_ft_matched", "cdcda")
    ratios: tuple[Fraction, ...] | None = None
    ks: tuple[PositiveInt, ...] | None = None
    thresholds: tuple[ThresholdsConfig, ...] = ()
    sweep: tuple[str, ...] = ()
    layout: Literal[
        "plain",
        "table1",
        "table2",
        "table3",
        "figure2",
        "thresholds",
        "rank",
        "few_shot",
        "dac24",
        "drift",
    ] = "plain"
    contrasts: tuple[str, ...] = (
        "cdcda - direct_ft",
        "cdcda - direct_ft_matched",
        "cdcda - device_rag",
    )
    permutations: PositiveInt = 20_000
    seed: int = 0
    name: str | None = None
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ()
    plugins: tuple[str, ...] = ()

    @property
    def message_limit_s(self) -> float:
        """Time limit of one message; whoever works for a cohort has its members' time."""
        cohort = self.qlora.cohort
        return self.resources.client_limit_s * (1 if cohort == "auto" else cohort)
