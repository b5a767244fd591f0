"""Prompts and training examples as token ids, through the checkpoint's own chat template.

User text never leaves its field: the template is rendered once around a sentinel and split there;
its parts are tokenised normally, the user's text without any control token, so a typed
``<|im_end|>`` stays text. Where text and template meet between two words, as in Qwen's template,
the ids equal ``apply_chat_template``'s. Text is never trimmed, also where a template would trim it.

A prompt that is too long loses text, never its instruction, in training and in answering alike:
the oldest tokens go, those at the beginning of the text x that the prompt is about (an article, a
review); retrieved records count as instruction. Of a prompt without parts all is text.

Templates that write today's date into the prompt (Llama 3.2, SmolLM3, Mistral) get
:data:`PROMPT_DATE` instead, so that a prompt is the same on every day.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import TYPE_CHECKING

from conf.errors import ModelError
from lamp.records import Pair, Prompt
from lamp.tasks import Task, training_example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100  # label of a token that the loss leaves out
_SENTINEL = "\ue000user text\ue001"
_REPLY = "\ue000reply\ue001"
PROMPT_DATE = date(2024, 7, 26)  # what Llama 3.2's template takes where it cannot know the day
# Before every template: the library's own function of this name tells today's date, and it takes no
# other one from outside.
_TODAY = (
    "{%- macro strftime_now(format) -%}{{ format"
    + "".join(
        f" | replace('%{each}', '{PROMPT_DATE.strftime(f'%{each}')}')"
        for each in ("a", "A", "b", "B", "d", "-d", "e", "m", "-m", "y", "Y", "j", "H", "M", "S")
    )
    + " }}{%- endmacro %}{{ '' }}"
)
# Before a template that knows no system turn: its text becomes the beginning of the user's.
_SYSTEM_IN_USER = (
    "{%- if messages[0]['role'] == 'system' %}{%- set messages = [{'role': messages[1]['role'], "
    "'content': messages[0]['content'] + '\n\n' + messages[1]['content']}] + messages[2:] %}"
    "{%- endif %}"
)


@dataclass(frozen=True, slots=True)
class Encoded:
    """One training example.

    Attributes:
        input_ids: Template, prompt, completion and the end-of-turn token.
        labels: As ``input_ids`` where the loss counts, ``IGNORED`` on template and prompt.
        shortened: Whether prompt or completion did not fit as a whole.
    """

    input_ids: list[int]
    labels: list[int]
    shortened: bool = False


@dataclass(frozen=True, slots=True)
class TurnParts:
    """The chat template around one user turn, tokenised.

    Attributes:
        before: Everything in front of the user's text.
        after: From the end of the user's text to where the reply starts.
        end_of_turn: The token that ends a reply.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]
    end_of_turn: int


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase,
    prompt: str | bytes | Prompt,
    system: str | None,
    max_len: int,
) -> list[int]:
    """Encode one user turn, ready for the reply.

    Args:
        tokenizer: Tokenizer with a chat template.
        prompt: The user's turn; undecodable bytes and lone surrogates become U+FFFD.
        system: System turn; None leaves it to the template, which may add its own.
        max_len: Longest result; a longer prompt loses the oldest tokens of its text.

    Raises:
        ModelError: If there is no usable chat template, or ``max_len`` is too short for it.
    """
    return encode_turn(tokenizer, prompt, system, max_len)[0]


def encode_turn(
    tokenizer: PreTrainedTokenizerBase,
    prompt: str | bytes | Prompt,
    system: str | None,
    max_len: int,
) -> tuple[list[int], bool]:
    """Return what :func:`encode_prompt` does, and whether the prompt was shortened."""
    parts = turn_parts(tokenizer, system)
    room = _room(parts, max_len)
    ids = encode_text(tokenizer, _whole(prompt))
    kept = ids if len(ids) <= room else _parted(tokenizer, prompt, ids).newest(room)
    return [*parts.before, *kept, *parts.after], len(ids) > room


def encode_example(
    tokenizer: PreTrainedTokenizerBase,
    prompt: str | bytes | Prompt,
    completion: str | bytes,
    system: str | None,
    max_len: int,
) -> Encoded:
    """Encode one prompt with its completion; only completion and end-of-turn token are scored.

    Too long an example first loses the oldest tokens of the prompt's text. A completion that does
    not fit beside the instruction alone is cut at its end and then has no end-of-turn token:
    nothing should teach the model to stop in the middle of a sentence.

    Args:
        tokenizer: Tokenizer with a chat template.
        prompt: The user's turn.
        completion: The reply to learn.
        system: System turn; None leaves it to the template.
        max_len: Longest example, in tokens.

    Raises:
        ModelError: If there is no usable chat template, or ``max_len`` is too short for it.
    """
    parts = turn_parts(tokenizer, system)
    room = _room(parts, max_len)
    ids = encode_text(tokenizer, _whole(prompt))
    reply = [*encode_text(tokenizer, completion), parts.end_of_turn]
    shortened = len(ids) + len(reply) > room
    if shortened:
        turn = _parted(tokenizer, prompt, ids)
        fixed = turn.before + turn.after
        reply = reply[: room - fixed] if fixed < room else reply[:room]
        ids = turn.newest(room - len(reply))
    asked = [*parts.before, *ids, *parts.after]
    return Encoded(asked + reply, [IGNORED] * len(asked) + reply, shortened)


def num_scored(example: Encoded) -> int:
    """Number of tokens of ``example`` that the loss counts; its first token is never predicted."""
    return sum(label != IGNORED for label in example.labels[1:])


def encode_pairs(
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    pairs: Iterable[Pair],
    system: str | None,
    max_len: int,
) -> list[Encoded]:
    """Encode records of D_u, or synthetic ones, as training examples of ``task``."""
    return [
        encode_example(tokenizer, *training_example(task, pair), system=system, max_len=max_len)
        for pair in pairs
    ]


def stop_ids(tokenizer: PreTrainedTokenizerBase, system: str | None) -> tuple[int, ...]:
    """Return the ids that end a reply: end of turn, end of text and padding, in ascending order.

    For Qwen2.5 these are the two ids of its ``generation_config.json``, which itself is not read.
    """
    ends = {turn_parts(tokenizer, system).end_of_turn, tokenizer.eos_token_id, pad_id(tokenizer)}
    return tuple(sorted(end for end in ends if end is not None))


def pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the padding id, or the end-of-text id where the tokenizer has no padding token.

    Raises:
        ModelError: If the tokenizer has neither.
    """
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    raise ModelError(
        f"tokenizer {tokenizer.name_or_path}: expected a pad_token or an eos_token, got neither; "
        "set one in its tokenizer_config.json"
    )


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str | bytes) -> list[int]:
    """Tokenise user text so that no control token can come out of it.

    ``split_special_tokens`` leaves added tokens that are not flagged special (Qwen's
    ``<tool_call>``) in force, so the text is also cut inside each of those.
    """
    controls = _controls(tokenizer, len(tokenizer))
    ids: list[int] = []
    for piece in _cut_inside(controls.plain, clean(text)):
        ids += tokenizer.encode(piece, add_special_tokens=False, split_special_tokens=True)
    return [token for token in ids if token not in controls.special]


def clean(text: str | bytes) -> str:
    """Return ``text`` as valid Unicode; undecodable bytes and lone surrogates become U+FFFD."""
    if isinstance(text, bytes):
        return text.decode("utf-8", "replace")
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def turn_parts(tokenizer: PreTrainedTokenizerBase, system: str | None) -> TurnParts:
    """Return the tokenised template around a user turn; rendered once per tokenizer and system.

    Raises:
        ModelError: If the tokenizer has no chat template, or one that does not show the user's
            text exactly once.
    """
    if not tokenizer.chat_template:
        raise ModelError(
            f"tokenizer {tokenizer.name_or_path}: expected a chat template, got none; use an "
            "instruction-tuned checkpoint or put a chat_template.jinja beside its tokenizer.json"
        )
    return _parts(tokenizer, str(tokenizer.chat_template), system)


def put_system_into_user_turn(tokenizer: PreTrainedTokenizerBase) -> None:
    """Change the chat template so that a system turn's text begins the user's turn.

    For templates that refuse a system turn, as Gemma's; the template is saved with the tokenizer.
    """
    template = tokenizer.chat_template
    if isinstance(template, str) and not template.startswith(_SYSTEM_IN_USER):
        tokenizer.chat_template = _SYSTEM_IN_USER + template


@lru_cache(maxsize=32)
def _parts(
    tokenizer: PreTrainedTokenizerBase,
    template: str,  # noqa: ARG001
    system: str | None,
) -> TurnParts:
    # `template` is in the key only so that a changed template is rendered anew
    turns = [{"role": "user", "content": _SENTINEL}]
    if system is not None:
        turns.insert(0, {"role": "system", "content": system})
    rendered = _render(tokenizer, turns, for_reply=True)
    if system is not None and system.strip() not in rendered:
        raise _no_system_turn(tokenizer, "leaves it out")
    before, after = _split(tokenizer, rendered, _SENTINEL)
    answered = [*turns, {"role": "assistant", "content": _REPLY}]
    _, tail = _split(tokenizer, _render(tokenizer, answered, for_reply=False), _REPLY)
    return TurnParts(
        before=tuple(tokenizer.encode(before, add_special_tokens=False)),
        after=tuple(tokenizer.encode(after, add_special_tokens=False)),
        end_of_turn=_end_of_turn(tokenizer, tail),
    )


def _render(
    tokenizer: PreTrainedTokenizerBase, turns: list[dict[str, str]], *, for_reply: bool
) -> str:
    from jinja2 import TemplateError

    try:
        return str(
            tokenizer.apply_chat_template(
                turns,
                tokenize=False,
                add_generation_prompt=for_reply,
                chat_template=_TODAY + str(tokenizer.chat_template),
                date_string=PROMPT_DATE.strftime("%d %b %Y"),
            )
        )
    except TemplateError as error:
        if turns[0]["role"] == "system":
            raise _no_system_turn(tokenizer, f"refuses it: {error}") from error
        raise ModelError(
            f"tokenizer {tokenizer.name_or_path}: expected a chat template for one user turn, got "
            f"one that refuses it: {error}; use another chat template"
        ) from error


def _no_system_turn(tokenizer: PreTrainedTokenizerBase, what: str) -> ModelError:
    return ModelError(
        f"tokenizer {tokenizer.name_or_path}: expected a chat template with a system turn, got one "
        f"that {what}; set system_prompt=null, or system_turn=user to put the text into the user's "
        "turn, both below model.device or model.cloud"
    )


def _split(tokenizer: PreTrainedTokenizerBase, rendered: str, sentinel: str) -> tuple[str, str]:
    parts = rendered.split(sentinel)
    if len(parts) != 2:
        raise ModelError(
            f"tokenizer {tokenizer.name_or_path}: expected a chat template that shows each turn's "
            f"text once and unchanged, got it {len(parts) - 1} times; use another chat template"
        )
    return parts[0], parts[1]


def _end_of_turn(tokenizer: PreTrainedTokenizerBase, tail: str) -> int:
    """Return the first control token behind a reply, or end of text where there is none."""
    for token in tokenizer.encode(tail, add_special_tokens=False):
        if token in tokenizer.added_tokens_decoder:
            return int(token)
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"tokenizer {tokenizer.name_or_path}: expected an end-of-turn token in the chat "
            "template or an eos_token, got neither; set eos_token in its tokenizer_config.json"
        )
    return int(tokenizer.eos_token_id)


def _room(parts: TurnParts, max_len: int) -> int:
    room = max_len - len(parts.before) - len(parts.after)
    if room < 1:
        raise ModelError(
            f"max length {max_len}: expected more than the {max_len - room} tokens of the chat "
            "template; raise qlora.max_seq_len"
        )
    return room


@dataclass(frozen=True, slots=True)
class _Turn:
    """A user's turn as token ids.

    Attributes:
        ids: The whole turn.
        before: So many ids from the start belong to what stands before the text.
        after: So many from the end to what follows it.
    """

    ids: list[int]
    before: int
    after: int

    def newest(self, room: int) -> list[int]:
        """At most ``room`` ids: the oldest of the text go; where that is not enough, the oldest."""
        excess = len(self.ids) - room
        if excess <= 0:
            return self.ids
        text = len(self.ids) - self.before - self.after
        kept = self.ids[: self.before] + self.ids[self.before + min(excess, text) :]
        return kept[len(kept) - room :]


def _whole(prompt: str | bytes | Prompt) -> str | bytes:
    return str(prompt) if isinstance(prompt, Prompt) else prompt


def _parted(
    tokenizer: PreTrainedTokenizerBase, prompt: str | bytes | Prompt, ids: list[int]
) -> _Turn:
    """Find the parts of a prompt in its ids; a token across the border of a part is text."""
    if not isinstance(prompt, Prompt):
        return _Turn(ids, 0, 0)
    before = _common(ids, encode_text(tokenizer, prompt.before))
    after = _common(ids[before:][::-1], encode_text(tokenizer, prompt.after)[::-1])
    return _Turn(ids, before, after)


def _common(ids: list[int], others: list[int]) -> int:
    """Length of the common beginning."""
    pairs = zip(ids, others, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(ids), len(others)))


@dataclass(frozen=True, slots=True)
class _Controls:
    """What user text must not turn into.

    Attributes:
        special: Ids of the special tokens.
        plain: Matches where an added token begins that is not flagged special; None without any.
    """

    special: frozenset[int]
    plain: re.Pattern[str] | None


@lru_cache(maxsize=32)
def _controls(tokenizer: PreTrainedTokenizerBase, num_tokens: int) -> _Controls:  # noqa: ARG001
    # `num_tokens` is in the key only so that tokens added later are seen.
    # White space is left alone: some tokenizers keep runs of line breaks as added tokens.
    plain = [
        re.escape(token.content)
        for token in tokenizer.added_tokens_decoder.values()
        if not token.special and len(token.content) > 1 and not token.content.isspace()
    ]
    # a look-ahead, so that overlapping occurrences are found too
    pattern = re.compile("(?=" + "|".join(plain) + ")") if plain else None
    return _Controls(frozenset(tokenizer.all_special_ids), pattern)


def _cut_inside(pattern: re.Pattern[str] | None, text: str) -> list[str]:
    """Cut ``text`` behind the first character of every match of ``pattern``."""
    ends = [found.start() + 1 for found in pattern.finditer(text)] if pattern else []
    return [text[a:b] for a, b in zip([0, *ends], [*ends, len(text)], strict=True)]
