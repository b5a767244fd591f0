"""How the cloud model is asked for similar pairs: a template, filled once per shared record.

A template is plain text with the slots ``{x}`` and ``{y}`` for the record, and where it has them
``{labels}`` for the task's labels and ``{examples}`` for records of public users. One without
``{y}`` asks for a text alone: the reply is x of the new pair, and y stays the shared record's.
``{{word}}`` writes ``{word}``.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from conf.errors import ConfigError
from conf.names import suggestion
from conf.schema import AugmenterConfig, TaskConfig
from conf.seeds import derive_seed
from lamp import tasks
from lamp.labels import normalise_label
from lamp.prompts import augmentation_prompt, augmentation_reply
from lamp.records import Pair, UserHistory
from lamp.tasks import Task
from storage.hashing import hash_json
from storage.text_files import read_text
from strategy import public as public_users
from strategy.parsing import Parsed, parse_reply
from strategy.public import PublicUsers
from strategy.text_alone import parse_text

X, Y, LABELS, EXAMPLES = "x", "y", "labels", "examples"
SLOTS = (X, Y, LABELS, EXAMPLES)
LABEL_NOT_ALIGNED = "label_not_aligned"

_FORM = augmentation_reply(Pair("", "{x}", "{y}"))
TEMPLATES: dict[str, str] = {
    "paper": augmentation_prompt(Pair("", "{x}", "{y}")),
    "rewrite": (
        "Rewrite the Input of the following example with the same meaning in other words, and "
        'repeat its Response. Answer in the same form, beginning with "Input: [", no need to '
        f"explain.\n\n{_FORM}"
    ),
    "few_shot": (
        "Each of these examples is an Input with its Response:\n\n{examples}\n\n"
        "Rewrite the Input of the last example with the same meaning in other words, and repeat "
        f"its Response, in the same form, no need to explain.\n\n{_FORM}"
    ),
    "paraphrase": (
        "Paraphrase the following text: same meaning, other words, another sentence structure. "
        "Write the paraphrase only.\n\n{x}"
    ),
}

_SLOT = re.compile(r"\{\{(\w{1,40})\}\}|\{(\w{1,40})\}")


@dataclass(frozen=True)
class Prompt:
    """A template with what is the same for all records filled in.

    Attributes:
        template: Text with slots.
        labels: What stands for ``{labels}``.
        examples: What stands for ``{examples}``.
        prefill: How the reply begins; the model goes on from there.
    """

    template: str
    labels: str = ""
    examples: str = ""
    prefill: str = ""

    @cached_property
    def slots(self) -> frozenset[str]:
        """The slots that the template has."""
        return frozenset(found[2] for found in _SLOT.finditer(self.template) if found[2])

    @property
    def asks_for_text(self) -> bool:
        """Whether the reply is the text x alone."""
        return Y not in self.slots

    @cached_property
    def identity(self) -> str:
        """What names the prompt in cache keys: all its words."""
        return hash_json([self.template, self.labels, self.examples, self.prefill])

    def ask(self, pair: Pair) -> str:
        """Write the prompt for one shared record."""
        values = {X: pair.input, Y: pair.response, LABELS: self.labels, EXAMPLES: self.examples}
        return _SLOT.sub(
            lambda found: values[found[2]] if found[2] else f"{{{found[1]}}}", self.template
        )


def make_prompt(
    config: AugmenterConfig, task: Task, public: Iterable[UserHistory] = (), seed: int = 0
) -> Prompt:
    """Take the configured template and fill in what all records share.

    Args:
        config: Which template, how many examples, how the reply begins.
        task: Its labels stand for ``{labels}``.
        public: Whose records stand for ``{examples}``.
        seed: Root seed; another one draws other examples.

    Raises:
        ConfigError: If the template cannot be read, or has a slot that nothing can fill.
    """
    prompt = Prompt(template_of(config), prefill=config.prefill)
    where = f"augmenter.prompt={config.prompt}"
    for slot in sorted(prompt.slots - set(SLOTS)):
        raise ConfigError(
            f"{where}: unknown slot {{{slot}}}; known are "
            f"{', '.join(f'{{{name}}}' for name in SLOTS)}; write {{{{{slot}}}}} for the word"
        )
    if X not in prompt.slots:
        raise ConfigError(f"{where}: expected the slot {{x}} for the text of the shared record")
    if LABELS in prompt.slots and not task.pair_labels:
        raise ConfigError(f"{where}: {task.name} has no labels for its slot {{labels}}")
    if config.labels != "aligned" and not task.pair_labels:
        raise ConfigError(
            f"augmenter.labels={config.labels} has no effect for {task.name}, which has no labels; "
            "leave it out"
        )
    examples = draw_examples(public, config.examples, seed) if EXAMPLES in prompt.slots else ()
    if EXAMPLES in prompt.slots and not examples:
        raise ConfigError(
            f"{where}: its slot {{examples}} needs records of public users and augmenter.examples "
            "above 0"
        )
    return replace(
        prompt,
        labels=", ".join(task.pair_labels),
        examples="\n\n".join(augmentation_reply(pair) for pair in examples),
    )


def configured_prompt(
    config: AugmenterConfig, task: TaskConfig, public: PublicUsers, seed: int
) -> Prompt:
    """The configured prompt; public users are read only where it shows some of theirs."""
    shows = EXAMPLES in Prompt(template_of(config)).slots
    users = public_users.read(public) if shows else ()
    return make_prompt(config, tasks.task(task), users, seed)


def template_of(config: AugmenterConfig) -> str:
    """The text of the configured template.

    Raises:
        ConfigError: If it is neither a known name nor a file.
        DataError: If the file is no text.
    """
    if config.prompt in TEMPLATES:
        return TEMPLATES[config.prompt]
    path = Path(config.prompt).expanduser()
    if not path.is_file():
        raise ConfigError(
            f"augmenter.prompt={config.prompt}: neither a template nor a file. "
            f"{suggestion(config.prompt, TEMPLATES)}"
        )
    return read_text(path).replace("\r\n", "\n").rstrip("\n")


def draw_examples(public: Iterable[UserHistory], count: int, seed: int) -> list[Pair]:
    """Draw one record each of ``count`` public users, the same for the same seed."""
    users = sorted((user for user in public if user.pairs), key=lambda user: user.user_id)
    rng = random.Random(derive_seed(seed, "prompt examples"))
    return [rng.choice(user.pairs) for user in rng.sample(users, min(count, len(users)))]


def read_reply(
    task: Task, source: Pair, prompt: Prompt, labels: str, text: str, complete: bool
) -> Parsed:
    """Read a reply to ``prompt`` about the shared record ``source``.

    Args:
        task: Task of the records.
        source: The shared record.
        prompt: What was asked.
        labels: ``aligned`` rejects a label other than the shared record's, ``written`` takes the
            label that was written, ``source`` the shared record's whatever was written.
        text: What the model wrote behind the prefill.
        complete: Whether the reply ended by itself.
    """
    whole = prompt.prefill + text
    if prompt.asks_for_text:
        return _with_response(parse_text(whole, complete), source)
    if task.pair_labels and labels == "source":
        return _with_response(parse_reply(replace(task, pair_labels=()), whole, complete), source)
    parsed = parse_reply(task, whole, complete)
    if parsed.reason is None and task.pair_labels and labels == "aligned":
        asked = normalise_label(task, source.response)
        return parsed if parsed.response == asked else Parsed(reason=LABEL_NOT_ALIGNED)
    return parsed


def _with_response(parsed: Parsed, source: Pair) -> Parsed:
    return parsed if parsed.reason else replace(parsed, response=source.response)
