"""``key=value`` words of the small commands, which need no configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from conf.errors import ConfigError
from conf.names import suggestion


def read_words(
    command: str, words: Sequence[str], known: Sequence[str], free: bool = False
) -> tuple[dict[str, str], list[str]]:
    """Split words into keys with values and free words.

    Raises:
        ConfigError: If a key is unknown or given twice, or a free word came where none may.
    """
    values: dict[str, str] = {}
    rest: list[str] = []
    for word in words:
        key, equals, value = word.partition("=")
        if equals and key.isidentifier():
            if key not in known:
                raise ConfigError(f"{command}: unknown key '{key}'. {suggestion(key, known)}")
            if key in values:
                raise ConfigError(f"{command}: {key} is given twice")
            values[key] = value
        elif free and not word.startswith("-"):
            rest.append(word)
        else:
            hint = suggestion(key, known)
            raise ConfigError(f"{command}: expected key=value, got '{word}'. {hint}")
    return values, rest


def required(command: str, values: Mapping[str, str], key: str, example: str) -> str:
    """The value of ``key``.

    Raises:
        ConfigError: If it was not given.
    """
    if not values.get(key):
        raise ConfigError(f"{command}: {key} is missing, for example {key}={example}")
    return values[key]


def whole_number(command: str, key: str, text: str, most: int) -> int:
    """The whole number from 1 to ``most`` that ``text`` is.

    Raises:
        ConfigError: If it is none.
    """
    digits = text.isascii() and text.isdecimal() and len(text.lstrip("0")) <= len(str(most))
    if not digits or not 1 <= int(text.lstrip("0") or "0") <= most:
        raise ConfigError(
            f"{command}: {key} must be a whole number from 1 to {most}, got '{text[:20]}'"
        )
    return int(text.lstrip("0"))
