"""The methods: a registry of small records, filled below and by files of a user's own.

A method says what its devices train on, what stands in the prompt and whose model answers, how it
is shown, and what it may send; no method has a path of its own through the strategy, and no other
code asks for a method's name. :func:`register` adds one, also from a file of the user's own
(``plugins=[my_method.py]``, docs/own-data.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from conf.errors import ConfigError
from conf.names import suggestion
from protocol.wire import NUMBERS_ONLY, WIRE_TABLE, Allowed, allowed
from strategy import recipes
from strategy.hand_out import others_pairs
from strategy.method import Method

METHODS: dict[str, Method] = {}  # in the order of registration; register() fills it


def register(method: Method, wire: Allowed = NUMBERS_ONLY) -> Method:
    """Add a method, to be named in ``methods=[...]``.

    Args:
        method: The method.
        wire: What it may send beyond identity, settings and numbers
            (:func:`protocol.wire.allowed`); without it numbers only, and devices download M_base.

    Returns:
        The method.

    Raises:
        ConfigError: If there is one of that name, it names another that is not there, or its
            messages need more than ``wire`` allows.
    """
    name = method.name
    if name in METHODS:
        raise ConfigError(f"method '{name}' exists already; give yours another name")
    if not name.isidentifier():
        raise ConfigError(f"method '{name}': expected letters, digits and _ as its name; rename it")
    for key in ("adapter_of", "without_sharing", "variant_of"):
        if (other := getattr(method, key)) and other not in METHODS:
            raise ConfigError(f"method '{name}', {key}: unknown '{other}'. {known(other)}")
    for direction, needed, given in (
        ("up", method.needs.up, wire.up),
        ("down", method.needs.down, wire.down),
    ):
        if missing := sorted(needed - given):
            raise ConfigError(
                f"method '{name}' sends {', '.join(missing)} {direction}, its wire row does not "
                f'allow it; add it: register(method, wire=allowed({direction}="..."))'
            )
    METHODS[name], WIRE_TABLE[name] = method, wire
    return method


def known(name: str) -> str:
    """What to type instead of the unknown name of a method."""
    return suggestion(name, METHODS)


def find_method(name: str, key: str = "methods") -> Method:
    """Look up a method that the configuration names under ``key``.

    Raises:
        ConfigError: If there is none of that name; the message names the nearest.
    """
    if name not in METHODS:
        raise ConfigError(
            f"{key}: unknown '{name}'. {known(name)}; one of your own needs "
            "plugins=[<file that registers it>]"
        )
    return METHODS[name]


def has_oracle(names: Sequence[str]) -> bool:
    """Whether one of the methods reads every history outside the wire."""
    return any(find_method(name).oracle for name in names)


def is_oracle(name: str) -> bool:
    """Whether the method of that name, where it is known, reads every history."""
    return name in METHODS and METHODS[name].oracle


def is_tuned_cloud(name: str) -> bool:
    """Whether the method of that name, where it is known, is the tuned large model."""
    return name in METHODS and METHODS[name].is_tuned_cloud


def compared() -> tuple[str, ...]:
    """Names of the methods that others are compared with, the most telling first."""
    found = (method for method in METHODS.values() if method.compared)
    return tuple(each.name for each in sorted(found, key=lambda each: each.compared))


def studied() -> str:
    """Name of the method that the project is about."""
    return next(method.name for method in METHODS.values() if method.studied)


LAMP = "Salemi et al., ACL 2024 (LaMP)"
OPPU = "Tan et al., EMNLP 2024 (OPPU)"
CDCDA = "Zhong et al., arXiv 2508.21313, 2025 (CDCDA-PLM)"
DAC24 = "Qin et al., DAC 2024"
DP_SGD = "Abadi et al., CCS 2016 (DP-SGD)"
GATE = "Wang et al., arXiv 1910.10252, 2019"

ORACLE = allowed()  # nothing crosses the wire: all data are in the cloud
AUGMENTED = allowed(up="shared pairs", down="kept pairs, M_base")


def _variant(method: Method, ending: str, about: str, reference: str, **differing: Any) -> Method:
    """The method with something else; it has neither the method's place nor its looks."""
    plain: dict[str, Any] = {"title": "", "colour": "", "studied": False, "compared": 0}
    own = {**plain, "name": f"{method.name}_{ending}", "variant_of": method.name, **differing}
    return replace(method, about=about, reference=reference, **own)


def _with_rag(method: Method, title: str, **differing: Any) -> Method:
    """The method with records of the user's profile in the prompt; its adapter is the same."""
    return _variant(
        method,
        "rag",
        f"{method.name} with records of the user's own profile in the prompt (BM25)",
        LAMP,
        title=title,
        retrieves=True,
        adapter_of=method.name if method.adapts else "",
        **differing,
    )


def _streaming(name: str, about: str, **differing: Any) -> Method:
    """A method that streams; ``differing`` is what parts it from dac24."""
    return Method(
        name=name,
        about=about,
        reference=DAC24,
        variant_of="" if name == "dac24" else "dac24",
        adapts=True,
        recipe=recipes.streamed(**differing),
    )


def _private(method: Method, about: str, without_sharing: str) -> Method:
    """The method with DP-SGD."""
    changed = {"without_sharing": without_sharing, "recipe": recipes.noised}
    return _variant(method, "dp", about, DP_SGD, **changed)


def _gated(method: Method, without_sharing: str) -> Method:
    """The method with a gate on the device."""
    about = f"{method.name}, its adapter used only where cross-validation in D_u favours it"
    changed = {"without_sharing": without_sharing, "recipe": recipes.gated}
    return _variant(method, "gated", about, GATE, **changed)


_CLOUD = Method(
    name="cloud",
    about="M_cloud, the large model tuned on public users",
    title="M_cloud\ntuned",
    compared=7,
    oracle=True,
    answers="cloud",
)
_DEVICE = Method(
    name="device",
    about="M_base, the small model tuned on public users",
    title="M_dev.\ntuned",
    colour="#555555",
    compared=2,
)
_DIRECT_FT = Method(
    name="direct_ft",
    about="adapter on D_u only",
    title="Direct\n-FT",
    colour="#0072B2",
    reference=OPPU,
    compared=1,
    adapts=True,
)
_LOCAL = replace(_DIRECT_FT, colour="", reference="", compared=0, without_sharing="direct_ft")
_CDCDA = replace(
    _LOCAL,
    name="cdcda",
    about="adapter on D_u and the kept synthetic pairs",
    title="CDCDA\n-PLM",
    colour="#D55E00",
    reference=CDCDA,
    studied=True,
    added="kept",
)

register(
    replace(
        _CLOUD,
        name="cloud_zero_shot",
        about="the large model as it comes",
        title="M_cloud\n0-shot",
        compared=0,
        tuned=False,
    ),
    ORACLE,
)
register(_CLOUD, ORACLE)
register(_with_rag(_CLOUD, "M_cloud\n+RAG"), ORACLE)
register(
    replace(
        _DEVICE,
        name="device_zero_shot",
        about="the small model as it comes",
        title="M_dev.\n0-shot",
        colour="",
        compared=0,
        tuned=False,
    ),
    allowed(down="device model"),
)
register(_DEVICE)
register(_with_rag(_DEVICE, "M_dev.\n+RAG"))
register(_DIRECT_FT)
register(_with_rag(_DIRECT_FT, "Direct\n+RAG"))
register(
    replace(
        _LOCAL,
        name="direct_ft_matched",
        about="direct_ft with as many steps as cdcda",
        title="Direct\nmatch",
        colour="#56B4E9",
        compared=3,
        matches_steps=True,
    ),
    allowed(up="shared pairs", down="M_base"),  # how many are kept is known once they are there
)
register(
    replace(
        _LOCAL,
        name="copies_ft",
        about="adapter on D_u and k copies of each record that the user would share",
        title="Copies\n-FT",
        colour="#CC79A7",
        compared=4,
        recipe=recipes.copies,
    )
)
register(
    replace(
        _LOCAL,
        name="eda_ft",
        about="adapter on D_u and k EDA variants of each record that the user would share",
        title="EDA\n-FT",
        colour="#E69F00",
        reference="Wei and Zou, EMNLP 2019 (EDA)",
        compared=5,
        recipe=recipes.eda,
    )
)
register(
    replace(
        _LOCAL,
        name="self_ft",
        about="adapter on D_u and k texts that the device's own model writes of each record",
        recipe=recipes.self_written,
    )
)
register(
    replace(
        _LOCAL,
        name="neighbours_ft",
        about="adapter on D_u and the k nearest public records of each record (nothing is shared)",
        recipe=recipes.neighbours,
        added="public",
    ),
    allowed(down="public records, M_base"),
)
register(
    replace(
        _LOCAL,
        name="rkd_ft",
        about="direct_ft and per-token reverse KL to M_cloud on shared pairs (off-policy)",
        title="RKD\n-FT",
        colour="#009E73",
        reference="Gu et al., ICLR 2024 (MiniLLM)",
        compared=6,
        recipe=recipes.distilled,
        added="logits",
    ),
    allowed(up="shared pairs", down="teacher logits, M_base"),
)
register(_CDCDA, AUGMENTED)
register(_with_rag(_CDCDA, "CDCDA\n+RAG", without_sharing="direct_ft_rag"), AUGMENTED)
register(
    replace(
        _CDCDA,
        name="cdcda_random",
        about="cdcda with as many synthetic pairs as the filters keep, drawn at random (RS)",
        title="RS",
        colour="#882255",
        studied=False,
        variant_of="cdcda",
        choice="random",
    ),
    AUGMENTED,
)
register(
    replace(
        _CDCDA,
        name="cdcda_unfiltered",
        about="cdcda with every readable synthetic pair (-DS)",
        title="-DS",
        colour="#117733",
        studied=False,
        variant_of="cdcda",
        choice="all",
    ),
    AUGMENTED,
)
register(
    _variant(
        _CDCDA,
        "shuffled",
        "cdcda with another user's kept pairs: is its gain personal, or mere regularisation?",
        "",
        title="CDCDA\nshuffled",
        colour="#999933",
        hand_out=others_pairs,
    ),
    AUGMENTED,
)
register(
    Method(
        name="fedavg",
        about="one adapter for all users: FedAvg over the users' LoRA weights",
        title="Fed\nAvg",
        reference="McMahan et al., AISTATS 2017 (FedAvg)",
        adapts=True,
        recipe=recipes.averaged,
    ),
    allowed(up="LoRA weights", down="averaged weights, M_base"),
)
for _method in (
    _streaming("dac24", "adapter on a buffer kept by three scores and on the device's own texts"),
    _streaming("dac24_random", "dac24 with a buffer of random records", replace="random"),
    _streaming("dac24_fifo", "dac24 with a buffer of the newest records", replace="fifo"),
    _streaming("dac24_kcenter", "dac24 with a buffer by greedy k-center", replace="k_center"),
    _streaming("dac24_eoe", "dac24 by embedding entropy alone", scores=("entropy",)),
    _streaming("dac24_dss", "dac24 by the domain-specific score alone", scores=("domain",)),
    _streaming("dac24_idd", "dac24 by in-domain dissimilarity alone", scores=("dissimilarity",)),
    _streaming("dac24_plain", "dac24 without the device's own texts", synthesis=False),
    _streaming(
        "dac24_random_plain",
        "a buffer of random records, without the device's own texts",
        replace="random",
        synthesis=False,
    ),
):
    register(_method)
register(_private(_DIRECT_FT, "direct_ft with DP-SGD: clipped and noised per record", ""))
register(
    _private(
        _CDCDA,
        "cdcda with DP-SGD; a record and what was made from it count as one",
        without_sharing="direct_ft_dp",
    ),
    AUGMENTED,
)
register(_gated(_DIRECT_FT, ""))
register(_gated(_CDCDA, without_sharing="direct_ft_gated"), AUGMENTED)
register(
    Method(
        name="unified",
        about="one adapter for all users, trained in the cloud on pooled data",
        title="Uni-\nfied",
        oracle=True,
        adapts=True,
    ),
    ORACLE,
)
