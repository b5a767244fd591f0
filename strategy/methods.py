"""The methods as small records, and the arms of an experiment: method x ratio x k x thresholds.

A method says what its devices train on, what stands in the prompt and whose model answers; no
method has a path of its own through the strategy.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any, Literal

from conf.errors import ConfigError
from conf.schema import Config, FiltersConfig, ThresholdsConfig
from protocol.recipe import ALL_SCORES, Replace, Score

Added = Literal["nothing", "kept", "copies", "eda", "logits"]
Choice = Literal["filtered", "random", "all"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Streaming:
    """What a device does that keeps only a few records of its history (Qin et al., DAC'24).

    Attributes:
        replace: How its full buffer makes room.
        scores: Scores that a newcomer must win in, where scores decide.
        synthesis: Whether its own model writes similar texts.
    """

    replace: Replace = "scores"
    scores: tuple[Score, ...] = ALL_SCORES
    synthesis: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One method of DESIGN's table; the fields say all that parts it from the others.

    Attributes:
        name: Name in configuration, tables and ledger.
        about: One line for tables and help.
        oracle: Whether it reads every history outside the wire: all data in the cloud.
        answers: Whose model answers: the device's small one or the cloud's large one.
        tuned: Whether that model is tuned on the public users.
        adapts: Whether an adapter is trained: one per user, for an oracle one for all.
        added: What the adapter is trained on beside D_u: kept synthetic pairs, the device's own
            copies or EDA variants of what it would share, or the teacher's logits on shared pairs.
        choice: Which of the readable synthetic pairs are kept.
        matches_steps: Train on D_u alone, as many steps as with the kept pairs.
        federated: Whether the adapters are averaged over the users, round after round.
        retrieves: Whether records of the user's own profile stand in the prompt (RAG).
        adapter_of: Method whose adapter answers; "" for the method's own.
        private: Whether the adapter is trained with DP-SGD.
        streaming: How the device keeps a few records of D_u, seen as a stream; None for all of D_u.
    """

    name: str
    about: str
    oracle: bool = False
    answers: Literal["device", "cloud"] = "device"
    tuned: bool = True
    adapts: bool = False
    added: Added = "nothing"
    choice: Choice = "filtered"
    matches_steps: bool = False
    federated: bool = False
    retrieves: bool = False
    adapter_of: str = ""
    private: bool = False
    streaming: Streaming | None = None

    @property
    def downloads(self) -> bool:
        """Whether the devices train on synthetic pairs from the cloud."""
        return self.added == "kept"

    @property
    def distils(self) -> bool:
        """Whether the devices train on the teacher's logits."""
        return self.added == "logits"

    @property
    def shares(self) -> bool:
        """Whether records leave the devices, through consent."""
        return self.downloads or self.distils

    @property
    def needs_augmentation(self) -> bool:
        """Whether the cloud has to augment for this method (for its data or its step count)."""
        return self.downloads or self.matches_steps

    @property
    def needs_shares(self) -> bool:
        """Whether the server has to ask for records for this method."""
        return self.shares or self.needs_augmentation

    @property
    def depends_on_ratio(self) -> bool:
        """Whether another share ratio makes another arm."""
        return self.added != "nothing" or self.matches_steps

    @property
    def depends_on_k(self) -> bool:
        """Whether another number of samples per shared record makes another arm."""
        return self.needs_augmentation or self.added in ("copies", "eda")

    @property
    def depends_on_thresholds(self) -> bool:
        """Whether other filter thresholds make another arm."""
        return self.needs_augmentation and self.choice != "all"


def _with_rag(method: Method) -> Method:
    """The method with records of the user's profile in the prompt; its adapter is the same."""
    return replace(
        method,
        name=f"{method.name}_rag",
        about=f"{method.name} with records of the user's own profile in the prompt (BM25)",
        retrieves=True,
        adapter_of=method.name if method.adapts else "",
    )


_DEVICE = Method(name="device", about="M_base, the small model tuned on public users")
_DIRECT_FT = Method(name="direct_ft", about="adapter on D_u only", adapts=True)
_CDCDA = replace(
    _DIRECT_FT,
    name="cdcda",
    about="adapter on D_u and the kept synthetic pairs",
    added="kept",
)
_CLOUD = Method(
    name="cloud",
    about="M_cloud, the large model tuned on public users",
    oracle=True,
    answers="cloud",
)


def _streaming(name: str, about: str, **differing: Any) -> Method:
    """A method that streams; ``differing`` is what parts it from dac24."""
    return replace(_DIRECT_FT, name=name, about=about, streaming=Streaming(**differing))


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        replace(_CLOUD, name="cloud_zero_shot", about="the large model as it comes", tuned=False),
        _CLOUD,
        _with_rag(_CLOUD),
        replace(_DEVICE, name="device_zero_shot", about="the small model as it comes", tuned=False),
        _DEVICE,
        _with_rag(_DEVICE),
        _DIRECT_FT,
        _with_rag(_DIRECT_FT),
        replace(
            _DIRECT_FT,
            name="direct_ft_matched",
            about="direct_ft with as many steps as cdcda",
            matches_steps=True,
        ),
        replace(
            _DIRECT_FT,
            name="copies_ft",
            about="adapter on D_u and k copies of each record that the user would share",
            added="copies",
        ),
        replace(
            _DIRECT_FT,
            name="eda_ft",
            about="adapter on D_u and k EDA variants of each record that the user would share",
            added="eda",
        ),
        replace(
            _DIRECT_FT,
            name="rkd_ft",
            about="direct_ft and per-token reverse KL to M_cloud on shared pairs (off-policy)",
            added="logits",
        ),
        _CDCDA,
        _with_rag(_CDCDA),
        replace(
            _CDCDA,
            name="cdcda_random",
            about="cdcda with as many synthetic pairs as the filters keep, drawn at random (RS)",
            choice="random",
        ),
        replace(
            _CDCDA,
            name="cdcda_unfiltered",
            about="cdcda with every readable synthetic pair (-DS)",
            choice="all",
        ),
        replace(
            _DIRECT_FT,
            name="fedavg",
            about="one adapter for all users: FedAvg over the users' LoRA weights",
            federated=True,
        ),
        _streaming(
            "dac24", "adapter on a buffer kept by three scores and on the device's own texts"
        ),
        _streaming("dac24_random", "dac24 with a buffer of random records", replace="random"),
        _streaming("dac24_fifo", "dac24 with a buffer of the newest records", replace="fifo"),
        _streaming("dac24_kcenter", "dac24 with a buffer by greedy k-center", replace="k_center"),
        _streaming("dac24_eoe", "dac24 by embedding entropy alone", scores=("entropy",)),
        _streaming("dac24_dss", "dac24 by the domain-specific score alone", scores=("domain",)),
        _streaming(
            "dac24_idd", "dac24 by in-domain dissimilarity alone", scores=("dissimilarity",)
        ),
        _streaming("dac24_plain", "dac24 without the device's own texts", synthesis=False),
        _streaming(
            "dac24_random_plain",
            "a buffer of random records, without the device's own texts",
            replace="random",
            synthesis=False,
        ),
        replace(
            _DIRECT_FT,
            name="direct_ft_dp",
            about="direct_ft with DP-SGD: clipped and noised per record",
            private=True,
        ),
        replace(
            _CDCDA,
            name="cdcda_dp",
            about="cdcda with DP-SGD; a record and what was made from it count as one",
            private=True,
        ),
        Method(
            name="unified",
            about="one adapter for all users, trained in the cloud on pooled data",
            oracle=True,
            adapts=True,
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Arm:
    """One thing that is trained and scored.

    Attributes:
        method: What the devices do.
        ratio: Share ratio that the server asks for; None asks for all that each user allows.
        k: Samples per shared record; None takes the augmenter's.
        thresholds: Filter thresholds of its own; None takes the configured ones.
        epsilon: Privacy loss of DP-SGD, where the run has several; None takes the only one.
    """

    method: Method
    ratio: float | None = None
    k: int | None = None
    thresholds: ThresholdsConfig | None = None
    epsilon: float | None = None

    @property
    def name(self) -> str:
        """Unique within the experiment, e.g. "cdcda", "cdcda@0.5" or "cdcda@1+k3"."""
        return self.method.name + self._setting

    @property
    def _setting(self) -> str:
        """What stands behind the method's name: only what was asked for apart."""
        ratio = "" if self.ratio is None else f"@{self.ratio:g}"
        k = "" if self.k is None else f"+k{self.k}"
        epsilon = "" if self.epsilon is None else f"+eps{self.epsilon:g}"
        return (
            ratio
            + k
            + epsilon
            + "".join(f"+{name}{value:g}" for name, value in self.own_thresholds)
        )

    @property
    def own_thresholds(self) -> tuple[tuple[str, float], ...]:
        """Names and values of the arm's own thresholds."""
        if self.thresholds is None:
            return ()
        given = asdict(self.thresholds)
        return tuple((name, value) for name, value in given.items() if value is not None)

    def filters(self, configured: FiltersConfig) -> FiltersConfig:
        """The thresholds of this arm."""
        own: dict[str, Any] = dict(self.own_thresholds)
        return replace(configured, **own)

    @property
    def asked_ratio(self) -> float:
        """The ratio in the share request."""
        return 1.0 if self.ratio is None else self.ratio

    @property
    def adapter(self) -> str:
        """Name of the adapter that answers, shared by arms that train the same; "" for none."""
        if not self.method.adapts:
            return ""
        return (self.method.adapter_of or self.method.name) + self._setting


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


def has_oracle(names: Sequence[str]) -> bool:
    """Whether one of the methods reads every history outside the wire."""
    return any(find_method(name).oracle for name in names)


def configured_arms(config: Config) -> tuple[Arm, ...]:
    """The arms of a run."""
    return make_arms(
        config.methods, config.ratios, config.ks, config.thresholds, config.baselines.dp_epsilons
    )


def make_arms(
    methods: Sequence[str],
    ratios: Sequence[float] | None,
    ks: Sequence[int] | None = None,
    thresholds: Sequence[ThresholdsConfig] = (),
    epsilons: Sequence[float] = (),
) -> tuple[Arm, ...]:
    """Expand methods by every setting that they depend on: one arm for each combination.

    Raises:
        ConfigError: If a method is unknown or named twice, or none is named.
    """
    if not methods:
        raise ConfigError(f"methods: expected at least one of {', '.join(METHODS)}")
    if len(set(methods)) != len(methods):
        raise ConfigError(f"methods: each at most once, got {', '.join(methods)}")
    arms: list[Arm] = []
    for method in map(find_method, methods):
        own_ratios = ratios if ratios is not None and method.depends_on_ratio else (None,)
        own_ks = ks if ks is not None and method.depends_on_k else (None,)
        own_thresholds = thresholds if thresholds and method.depends_on_thresholds else (None,)
        own_epsilons = epsilons if method.private and len(epsilons) > 1 else (None,)
        settings = product(own_ratios, own_ks, own_thresholds, own_epsilons)
        arms += [Arm(method, *setting) for setting in settings]
    return tuple(arms)
