"""The methods as small records: all that parts one from another stands in its record.

A method says what its devices train on, what stands in the prompt and whose model answers; no
method has a path of its own through the strategy.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from conf.errors import ConfigError
from protocol.recipe import Local, Recipe, Stream
from strategy import recipes
from strategy.recipes import MakeRecipe, RecipeInputs

Added = Literal["nothing", "kept", "logits"]
Choice = Literal["filtered", "random", "all"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One method; the fields say all that parts it from the others.

    Attributes:
        name: Name in configuration, tables and ledger.
        about: One line for tables and help.
        oracle: Whether it reads every history outside the wire: all data in the cloud.
        answers: Whose model answers: the device's small one or the cloud's large one.
        tuned: Whether that model is tuned on the public users.
        adapts: Whether an adapter is trained: one per user, for an oracle one for all.
        recipe: What its devices do besides training on D_u and on what the messages bring.
        added: What the messages bring: kept synthetic pairs, or the teacher's logits on shared
            pairs.
        choice: Which of the readable synthetic pairs are kept.
        matches_steps: Train on D_u alone, as many steps as with the kept pairs.
        retrieves: Whether records of the user's own profile stand in the prompt (RAG).
        adapter_of: Method whose adapter answers; "" for the method's own.
    """

    name: str
    about: str
    oracle: bool = False
    answers: Literal["device", "cloud"] = "device"
    tuned: bool = True
    adapts: bool = False
    recipe: MakeRecipe = recipes.plain
    added: Added = "nothing"
    choice: Choice = "filtered"
    matches_steps: bool = False
    retrieves: bool = False
    adapter_of: str = ""

    @property
    def usual_recipe(self) -> Recipe:
        """The recipe with the default settings: what kind of training it is."""
        return self.recipe(RecipeInputs())

    @property
    def federated(self) -> bool:
        """Whether the adapters are averaged over the users, round after round."""
        return self.usual_recipe.federated

    @property
    def private(self) -> bool:
        """Whether the adapter is trained with DP-SGD."""
        return self.usual_recipe.epsilon is not None

    @property
    def streaming(self) -> Stream | None:
        """How the device keeps a few records of D_u, seen as a stream; None for all of D_u."""
        return self.usual_recipe.stream

    @property
    def local(self) -> Local:
        """What a device makes by itself from the records that it would share."""
        return self.usual_recipe.local

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
        return self.added != "nothing" or self.local != "nothing" or self.matches_steps

    @property
    def depends_on_k(self) -> bool:
        """Whether another number of samples per shared record makes another arm."""
        return self.needs_augmentation or self.local != "nothing"

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
    return replace(_DIRECT_FT, name=name, about=about, recipe=recipes.streamed(**differing))


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
            recipe=recipes.copies,
        ),
        replace(
            _DIRECT_FT,
            name="eda_ft",
            about="adapter on D_u and k EDA variants of each record that the user would share",
            recipe=recipes.eda,
        ),
        replace(
            _DIRECT_FT,
            name="rkd_ft",
            about="direct_ft and per-token reverse KL to M_cloud on shared pairs (off-policy)",
            recipe=recipes.distilled,
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
            recipe=recipes.averaged,
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
            recipe=recipes.noised,
        ),
        replace(
            _CDCDA,
            name="cdcda_dp",
            about="cdcda with DP-SGD; a record and what was made from it count as one",
            recipe=recipes.noised,
        ),
        Method(
            name="unified",
            about="one adapter for all users, trained in the cloud on pooled data",
            oracle=True,
            adapts=True,
        ),
    )
}


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
