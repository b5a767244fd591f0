"""The papers' augmentation prompts and the forms of replies to them.

The prompt's one sentence is all that the paper prints (REFERENCE A.2); whether a chat template
stood around it is not known. :mod:`strategy.prompting` has the other prompts.
"""

from __future__ import annotations

from lamp import reading
from lamp.records import Pair


def augmentation_prompt(pair: Pair) -> str:
    """Ask for a pair similar to ``pair``; a text without response (LaMP-7) leaves "[]"."""
    return (
        "Generate an Input and Response pairs semantically similar to the following example, "
        f"no need to explain. {augmentation_reply(pair)}."
    )


def augmentation_reply(pair: Pair) -> str:
    """Write ``pair`` in the form in which the prompt shows its example and expects its answer."""
    return f"Input: [{pair.input}], Response: [{pair.response}]"


def rewriting_prompt(text: str) -> str:
    """Ask a device's own model for a text similar to ``text`` (Qin et al., DAC'24)."""
    return (
        "Please refine and generate a text semantically similar to the following text block, no "
        "need to answer it, no need to explain, use [] to hold your generated response: "
        f"{rewriting_reply(text)}"
    )


def rewriting_reply(text: str) -> str:
    """Write ``text`` in the form in which a reply to the rewriting prompt holds it."""
    return f"[{text}]"


def rewritten(reply: str) -> str | None:
    """Read the text out of a reply to the rewriting prompt; None where it holds none.

    It is what the first bracket holds, as a whole: what trails it is no part of it, and one that
    was cut off before it closed is none.
    """
    body = reading.without_thoughts(reading.clean(reply))
    text = None if body is None else reading.bracketed(body)
    return None if text is None or reading.is_blank(text) else text
