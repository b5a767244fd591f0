"""The arms of an experiment: method x ratio x k x thresholds x epsilon."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

from conf.errors import ConfigError
from conf.schema import Config, FiltersConfig, PrivacyConfig, ThresholdsConfig
from lamp.tasks import Task, task
from protocol.recipe import Recipe
from strategy.method import Method
from strategy.methods import METHODS, find_method
from strategy.recipes import RecipeInputs


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

    def recipe(self, common: RecipeInputs, number: int = 0) -> Recipe:
        """What the devices do in round ``number`` besides training on what they have.

        Args:
            common: What is the same for all arms; the arm's own ratio, k and epsilon go before.
            number: Round of a federated training.
        """
        own = replace(
            common,
            ratio=self.asked_ratio,
            k=self.k or common.k,
            epsilon=self.epsilon,
            round=number,
        )
        return self.method.recipe(own)


def check_methods(config: Config) -> None:
    """Refuse methods that the other settings exclude, and contrasts of unknown methods.

    Raises:
        ConfigError: If a method is unknown, or excluded; the message says why.
    """
    for contrast in config.contrasts:
        for name in contrast.split(" - "):
            find_method(name, "contrasts")
    for method in map(find_method, config.methods):
        deployed = config.engine.name == "deployment"
        for reason in _excluded(method, config.filters, config.privacy, deployed=deployed):
            raise ConfigError(reason)
        if method.streaming and config.stream.synth_response == "generate":
            _check_rewritable(task(config.task))


def _check_rewritable(task: Task) -> None:
    if task.pair_labels:
        raise ConfigError(
            f"stream.synth_response must be keep for {task.name}, whose responses are labels that "
            "no rewriting may change"
        )


def _excluded(
    method: Method, filters: FiltersConfig, privacy: PrivacyConfig, *, deployed: bool
) -> Iterator[str]:
    if method.private and method.downloads and filters.adversarial is not None:
        yield (
            f"filters.adversarial and the method {method.name} exclude each other: its classifier "
            "learns from all shared records, so what is kept of one would depend on the others"
        )
    if method.distils and privacy.redact:
        yield (
            f"privacy.redact and the method {method.name} exclude each other: the teacher's logits "
            "would belong to the redacted text, the device trains on its own"
        )
    if not deployed:
        return
    if method.oracle:
        yield (
            f"methods: {method.name} reads every user's history, which engine=deployment does not "
            f"have; leave {', '.join(each.name for each in METHODS.values() if each.oracle)} out"
        )
    if method.crosses_users:
        yield (
            f"methods: {method.name} hands pairs made from one user's records to another, which is "
            "a control for simulations; leave it out with engine=deployment"
        )


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
