"""Writing systems: which texts LaMP's ROUGE can score, and Unicode tokens for the others.

LaMP's tokens are runs of a-z and 0-9, so of a text in another script it sees next to nothing: a
verbatim copy scores 0. Here a token is a run of letters, marks and digits of any script, a single
character where a script puts no blanks between words (Chinese, Japanese, Thai, ...), or a symbol.
"""

from __future__ import annotations

import re
import unicodedata

LATIN_SHARE = 0.5  # a text with a smaller share of a-z among its letters is of another script
_UNSPACED = re.compile(
    "["
    "\u0e00-\u0eff"  # Thai, Lao
    "\u0f00-\u0fff"  # Tibetan
    "\u1000-\u109f\u1780-\u17ff"  # Myanmar, Khmer
    "\u3040-\u30ff\u31f0-\u31ff"  # Hiragana, Katakana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
    "]"
)


def is_latin(text: str) -> bool:
    """Whether LaMP's ROUGE sees most of ``text``: at least half of its letters are a-z.

    A text without letters counts by its digits, and an empty one as seen.
    """
    letters = [each for each in text.lower() if each.isalpha()]
    if letters:
        return sum(each.isascii() for each in letters) >= LATIN_SHARE * len(letters)
    return not text.strip() or any(each in "0123456789" for each in text)


def tokens(text: str) -> list[str]:
    """Unicode tokens of ``text``, see the module; case and compatibility forms do not count."""
    found: list[str] = []
    word = ""
    for each in unicodedata.normalize("NFKC", text).casefold():
        kind = unicodedata.category(each)
        if _UNSPACED.match(each) or kind in ("So", "Sk"):
            found += [word, each] if word else [each]
            word = ""
        elif kind[0] in "LMN":
            word += each
        elif word:
            found.append(word)
            word = ""
    return [*found, word] if word else found
