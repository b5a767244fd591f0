"""The paper's augmentation prompt and the form of a reply to it.

The prompt's one sentence is all that the paper prints (REFERENCE A.2); whether a chat template
stood around it is not known. ``AugmenterConfig.prompt_version`` names this wording.
"""

from __future__ import annotations

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
