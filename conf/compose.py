"""From ``key=value`` words to one checked, frozen :class:`~conf.schema.Config`.

Hydra's compose API reads the YAML groups; the schema's records type the result; ``conf.checks``
looks at what only shows across keys. Whatever is wrong ends in one :class:`ConfigError` of one
line, before anything heavy is loaded. Hydra's global state is left as it was found.

Two liberties towards plain Hydra: a key that stands in the schema needs no ``+`` although no YAML
file mentions it, and ``+key=value`` means the same as ``key=value``.
"""

from __future__ import annotations

import copy
import functools
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException
from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import TypeAdapter, ValidationError
from yaml import YAMLError

from conf import plugins
from conf.checks import check
from conf.effects import check_effect
from conf.errors import ConfigError
from conf.explain import explain, required
from conf.groups import ADDED, FOLDER, PRIMARY, groups, preset_text, version
from conf.keys import defaults, is_key, keys, suggest_key
from conf.names import nearest, suggestion
from conf.schema import Config

HYDRA_VERSION_BASE = "1.3"
ADAPTER = TypeAdapter(Config)


def compose(overrides: Sequence[str], *, tuning: bool = False) -> Config:
    """Compose the configuration of one run.

    Args:
        overrides: ``key=value`` and ``group=name`` words in Hydra's grammar; later ones win.
        tuning: Whether it is for ``python -m sim tune``, which alone reads the group ``tune``.

    Returns:
        The checked configuration. In ``paths`` a leading ``~`` is the home folder; other paths
        are as written, the launcher makes them absolute.

    Raises:
        ConfigError: If a word, name, key or value is refused; the message names the nearest known
            name or the bound.
    """
    parsed = _parse_all(overrides)
    config = from_json(json.dumps(_typed_tree(parsed)))
    check_effect(config, [override.key_or_group for override in parsed], tuning=tuning)
    cache, runs = (str(Path(path).expanduser()) for path in (config.paths.cache, config.paths.runs))
    return replace(config, paths=replace(config.paths, cache=cache, runs=runs))


def choices(overrides: Sequence[str]) -> dict[str, str]:
    """Return which preset of every group the words choose, e.g. ``{"qlora": "miniature", ...}``.

    Raises:
        ConfigError: As :func:`compose`, but without looking at the values.
    """
    return _presets(_parse_all(overrides))[1]


def expand(words: Sequence[str]) -> list[list[str]]:
    """Expand Hydra sweeps (``task=lamp_2,lamp_4``, ``seed=range(0,3)``) into one list per run.

    Args:
        words: As for :func:`compose`; any of them may hold several values.

    Returns:
        The cartesian product in the order of the words, the last one varying fastest; exactly
        one list where nothing is swept.

    Raises:
        ConfigError: If a word cannot be read or a sweep cannot be enumerated.
    """
    return [list(run) for run in itertools.product(*(_alternatives(word) for word in words))]


def to_json(config: Config) -> str:
    """Write ``config`` as JSON; equal configurations give equal text."""
    return ADAPTER.dump_json(config).decode("utf-8")


def from_json(text: str) -> Config:
    """Read what :func:`to_json` wrote, with the same checks as :func:`compose`.

    Raises:
        ConfigError: If a key is unknown or missing, or a value is refused.
    """
    try:
        config = ADAPTER.validate_json(text, strict=True)
    except ValidationError as error:
        raise ConfigError(explain(error)) from None
    plugins.load(config.plugins)
    check(config)
    return config


def _parse_all(words: Sequence[str]) -> list[Override]:
    parsed = [_parse(word) for word in words]
    plugins.load(_plugins(parsed))  # their presets are names like others
    known = groups()
    for override in parsed:
        _check_single(override)
        _check_name(override, known)
    return parsed


def _plugins(overrides: Iterable[Override]) -> Iterator[str]:
    """The plugins that the words name, the last ``plugins=`` alone, or else their experiment."""
    given = {override.key_or_group: override.value() for override in overrides}
    if "plugins" in given:
        named = given["plugins"]
    else:
        named = _experiments_plugins(str(given.get("experiment", "")))
    if isinstance(named, list | ListConfig):
        yield from map(str, named)


def _experiments_plugins(name: str) -> Any:
    file = FOLDER / "experiment" / f"{name}.yaml"
    if not file.is_file():
        return None
    preset_text("experiment", name)
    with _composing():
        return OmegaConf.select(OmegaConf.load(file), "plugins")


def _parse(word: str) -> Override:
    if "=" not in word.lstrip("="):
        raise ConfigError(f"'{word}': expected key=value, for example users=20{_hint(word)}")
    try:
        override = OverridesParser.create().parse_override(word)
    except ValueError:  # int() takes no more digits than sys.get_int_max_str_digits()
        key = word.partition("=")[0]
        raise ConfigError(
            f"{key}: expected a number of usual size, got one of thousands of digits; correct it"
        ) from None
    except HydraException:
        key, _, value = word.partition("=")
        raise ConfigError(
            f"{key}: the value {value} cannot be read; put it in two pairs of quotes: "
            f"{key}='\"{value}\"'"
        ) from None
    return override


def _hint(word: str) -> str:
    close = nearest(word, (*groups(), *keys()))
    return f". Did you mean '{close}=...'?" if close else ""


def _check_single(override: Override) -> None:
    key = override.key_or_group
    if override.is_delete() or override.package is not None:
        raise ConfigError(f"{override.input_line}: keys are set, not removed or moved: {key}=value")
    if override.is_sweep_override():
        raise ConfigError(
            f"{key}: several values make several runs: add -m, or write a list as {key}=[a,b]"
        )


def _check_name(override: Override, known: Mapping[str, Sequence[str]]) -> None:
    """Refuse an unknown group name or key before Hydra sees it."""
    key, value = override.key_or_group, override.value()
    names = known.get(key)
    if names is not None and not isinstance(value, str):
        raise ConfigError(f"{key}: expected one name. {suggestion(str(value), names)}")
    if names is not None and value not in names:
        raise ConfigError(f"{key}={value}: no such name. {suggestion(str(value), names)}")
    if names is not None and value not in ADDED.get(key, {}):
        preset_text(key, str(value))
    if names is None and not is_key(key):
        raise ConfigError(f"{key}: unknown key. {suggest_key(key, also=known)}")


def _typed_tree(overrides: Sequence[Override]) -> Any:
    """Set the given keys in the presets' tree and resolve it: ``${...}`` may refer to any key.

    Keys are added by force: the schema knows them although the YAML may not mention them.
    """
    tree, chosen = _presets(overrides)
    with _composing():
        for override in overrides:
            key = override.key_or_group
            if key not in chosen:
                OmegaConf.update(tree, key, override.value(), merge=True, force_add=True)
        resolved = OmegaConf.to_container(tree, resolve=True)
    if missing := sorted(_missing(resolved)):
        raise ConfigError("; ".join(required(key) for key in missing))
    return resolved


def _missing(tree: Any, path: str = "") -> Iterator[str]:
    if tree == MISSING:
        yield path
    elif isinstance(tree, dict):
        for key, value in tree.items():
            yield from _missing(value, f"{path}.{key}".lstrip("."))


def _presets(overrides: Iterable[Override]) -> tuple[DictConfig, dict[str, str]]:
    """The tree of the presets that the words choose, and which preset of each group that is."""
    known = groups()
    words = [
        o.input_line.lstrip("+") for o in overrides if o.input_line and o.key_or_group in known
    ]
    with _composing():
        tree, chosen = _compose_presets(tuple(words), version())
    return copy.deepcopy(tree), {group: chosen[group] for group in known}


@functools.lru_cache(maxsize=32)
def _compose_presets(words: tuple[str, ...], _: object) -> tuple[DictConfig, dict[str, str]]:
    """Let Hydra compose over the schema's defaults, and keep that: it takes some 200 ms."""
    with _fresh_hydra():
        tree = hydra_compose(PRIMARY, overrides=list(words), return_hydra_config=True)
    presets = OmegaConf.masked_copy(tree, [str(key) for key in tree if key != "hydra"])
    merged = OmegaConf.create(defaults())
    merged.merge_with(presets)
    for key in OmegaConf.missing_keys(presets):  # merge_with() passes over what a preset requires
        OmegaConf.update(merged, key, MISSING, force_add=True)
    return merged, dict(tree.hydra.runtime.choices)


@contextmanager
def _composing() -> Iterator[None]:
    try:
        yield
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise ConfigError(f"the configuration cannot be composed: {_one_line(error)}") from error


@contextmanager
def _fresh_hydra() -> Iterator[None]:
    state = GlobalHydra.instance()
    before = state.hydra
    state.clear()
    try:
        with initialize_config_dir(str(FOLDER), version_base=HYDRA_VERSION_BASE):
            yield
    finally:
        GlobalHydra.instance().hydra = before


def _one_line(error: Exception) -> str:
    cause = error.__cause__ or error
    return " ".join(str(cause).split())


def _alternatives(word: str) -> list[str]:
    override = _parse(word)
    key = override.get_key_element()
    if not override.is_sweep_override():
        return [word]
    if not override.is_discrete_sweep():
        raise ConfigError(f"{key}: an interval cannot be enumerated; write the values: {key}=a,b")
    return [f"{key}={value}" for value in _values(override)]


def _values(override: Override) -> Iterable[str]:
    pattern = override._value
    if not isinstance(pattern, Glob):
        return override.sweep_string_iterator()
    names = groups().get(override.key_or_group, ())
    if found := pattern.filter(list(names)):
        return found
    raise ConfigError(f"{override.input_line}: matches no name. Known: {', '.join(names)}")
