"""What every reader of a language model's reply needs: clean text, brackets, quotes, thoughts.

Everything here is linear in the length of the reply, whatever it holds: brackets are matched in one
pass, and no pattern can backtrack over more than a line's first characters.
"""

from __future__ import annotations

import re

_LINE_BREAKS = re.compile("\r\n?|[\u0085\u2028\u2029\v\f]")
_JOINERS = "\u200c\u200d"  # part of Persian words and of joined emoji
_THOUGHT = re.compile(r"\s*<(think|thinking|thought|reasoning)>", re.IGNORECASE)
_THOUGHT_END = re.compile(r"</(?:think|thinking|thought|reasoning)>", re.IGNORECASE)
_END_OF_TURN = re.compile(
    r"<\|(?:im_end|endoftext|eot_id|end_of_text|end)\|>|</s>|<(?:eos|end_of_turn)>"
)
_FENCE = re.compile(r"^[ \t]{0,8}(?:```|~~~)[\w+-]{0,20}[ \t]{0,8}$", re.MULTILINE)
_PLACEHOLDER = re.compile(r"[\s.…_\-]*")
_NEVER_CLOSES = ""

SQUARE = {"[": "]", "［": "］", "【": "】"}
BRACKETS = {**SQUARE, "{": "}"}
QUOTES = {'"': '"', "“": "”", "„": "“”", "«": "»", "»": "«", "「": "」", "『": "』"}
SINGLE_QUOTES = {"'": "'", "‘": "’", "`": "`"}
EMPHASIS = ("***", "**", "__", "*", "_")


def clean(text: str) -> str:
    r"""Return printable text with ``\n`` for every line break.

    Lone surrogates become "?"; control characters, direction marks and zero-width spaces are
    dropped. Spaces of any width and the two joiners stay: they are part of words.
    """
    valid = _LINE_BREAKS.sub("\n", text.encode("utf-8", "replace").decode("utf-8"))
    dropped = {char for char in set(valid) if not _is_kept(char)}
    return valid.translate(dict.fromkeys(map(ord, dropped))) if dropped else valid


def _is_kept(char: str) -> bool:
    return char.isprintable() or char.isspace() or char in _JOINERS


def without_thoughts(text: str) -> str | None:
    """Return what stands behind a reasoning model's thoughts; None where they never end.

    Thoughts stand at the start, in ``<think>``; where the chat template has opened them, only their
    end is in the reply.
    """
    ends = [found.end() for found in _THOUGHT_END.finditer(text)]
    if ends:
        return text[ends[-1] :]
    return None if _THOUGHT.match(text) else text


def until_end_of_turn(text: str) -> str | None:
    """Return what stands in front of a control token that leaked; None where there is none."""
    found = _END_OF_TURN.search(text)
    return text[: found.start()] if found else None


def without_fences(text: str) -> str:
    """Return ``text`` with the lines of code fences emptied."""
    return _FENCE.sub("", text)


def matched(text: str) -> dict[int, int]:
    """Return where each bracket that opens is closed; one that never closes is left out."""
    found = {}
    for opening, closing in BRACKETS.items():
        pending = []
        for bracket in re.finditer(f"[{re.escape(opening + closing)}]", text):
            if bracket[0] == opening:
                pending.append(bracket.start())
            elif pending:
                found[pending.pop()] = bracket.start()
    return found


def is_blank(text: str) -> bool:
    """Whether ``text`` says nothing: empty, or the dots of a form that nobody filled in."""
    return _PLACEHOLDER.fullmatch(text) is not None


def unwrap(text: str) -> str:
    """Strip white space, Markdown emphasis and one pair of quotes around the whole of ``text``."""
    text = text.strip()
    for mark in EMPHASIS:
        inner = text[len(mark) : -len(mark)]
        if _is_around(text, mark, mark) and mark[0] not in (inner[:1], inner[-1:]):
            text = inner.strip() if mark not in inner else text
            break
    opening = text[:1]
    closing = {**QUOTES, **SINGLE_QUOTES}.get(opening, _NEVER_CLOSES)
    if len(text) > 1 and closing and text[-1] in closing and _is_one_quote(text, opening):
        return text[1:-1].strip()
    return text


def _is_around(text: str, before: str, after: str) -> bool:
    wide = len(text) > len(before) + len(after)
    return wide and text.startswith(before) and text.endswith(after)


def _is_one_quote(text: str, opening: str) -> bool:
    """Whether the quotes at both ends belong together: none of their kind stands between them.

    An apostrophe inside a word is none.
    """
    inner = text[1:-1]
    if opening in "'‘":
        return not re.search(r"(?<!\w)['‘’]|['‘’](?!\w)", inner)
    return opening not in inner and text[-1] not in inner


def bracketed(text: str) -> str | None:
    """Return what the first square bracket of ``text`` holds; None without one, or if it is cut."""
    openings = [place for each in SQUARE if (place := text.find(each)) >= 0]
    if not openings:
        return None
    start = min(openings)
    end = matched(text).get(start)
    return None if end is None else text[start + 1 : end].strip() or None
