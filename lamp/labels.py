"""Labels as people and models write them, and which of a task's labels is meant.

One rule for files and for replies of language models: what differs from a label in case, white
space, surrounding punctuation or the way to write a whole number of stars is that label; everything
else is none. "4/5", "four" and "comedy, romance" are none: reading never guesses.
"""

from __future__ import annotations

import re
import unicodedata

from lamp.tasks import Task

MAX_CHARACTERS = 200  # a longer text is no label
_AROUND = " \t\n.,;:!\"'`*_()[]{}<>«»“”„‘’「」『』【】"
_HYPHENS = str.maketrans(dict.fromkeys("‐‑‒–—−", "-"))
_STARS = re.compile(r"(\d+)(?:\.0+)?(?:[ -]stars?)?")


def normalise_label(task: Task, text: str) -> str | None:
    """Return the label of ``task`` that ``text`` unambiguously writes, or None.

    Args:
        task: Task with labels; its pairs' labels count, or its queries' where pairs have none.
        text: Label as somebody wrote it, e.g. "Sci-Fi.", "4.0" or "4 stars".
    """
    if len(text) > MAX_CHARACTERS:
        return None
    known = {_canonical(label): label for label in task.pair_labels or task.labels}
    written = _canonical(text)
    if task.kind == "rating" and (stars := _STARS.fullmatch(written)):
        written = stars[1]
    return known.get(written)


def _canonical(text: str) -> str:
    plain = unicodedata.normalize("NFKC", text).translate(_HYPHENS)
    visible = "".join(char for char in plain if unicodedata.category(char) != "Cf")
    return " ".join(visible.casefold().split()).strip(_AROUND)
