"""The lexicons of a run: given, the miniature world's own, or made from the public users' texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from conf.schema import StreamConfig, TaskConfig
from conf.seeds import derive_seed
from lamp import world
from lamp.dialogue.lexicons import Lexicon, read_lexicons, telling_words, topics
from lamp.records import UserHistory
from strategy import public
from strategy.public import PublicUsers

AUTO = "auto"


def lexicons_of(
    config: StreamConfig, task: TaskConfig, users: PublicUsers, seed: int, *, miniature: bool
) -> tuple[Lexicon, ...]:
    """Words per domain, the same for all devices; no target user's text is looked at.

    Args:
        config: Where they come from, and how many.
        task: Task of the run, for the miniature world's own words.
        users: The public users.
        seed: Root seed.
        miniature: Whether the records are the miniature world's.

    Raises:
        DataError: If the file of ``stream.lexicons`` cannot be used, or there are no texts.
    """
    if config.lexicons != AUTO:
        return read_lexicons(Path(config.lexicons).expanduser())
    if miniature:
        return world.lexicons(task.name)
    texts = texts_by_domain(public.read(users))
    if len(texts) < 2:
        everything = [text for own in texts.values() for text in own]
        texts = topics(everything, config.lexicon_domains, derive_seed(seed, "topics"))
    return telling_words(texts, config.lexicon_words)


def texts_by_domain(users: Sequence[UserHistory]) -> dict[str, list[str]]:
    """Inputs and responses by the profile's field "domain"; "" where there is none."""
    texts: dict[str, list[str]] = {}
    for user in users:
        for item, pair in zip(user.profile, user.pairs, strict=True):
            own = texts.setdefault(item.fields.get("domain", ""), [])
            own += [pair.input, pair.response]
    return texts
