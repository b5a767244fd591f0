"""Texts on which tokenizers differ where they differ: digits, scripts, emoji, markup, white space.

Nothing here is quoted from a data set; every list comes from a seed or stands below.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import NamedTuple

SEED = 13
DRAWN = 40  # texts of each drawn kind


class Text(NamedTuple):
    """A text and what it is there for."""

    kind: str
    text: str


_WORDS = (
    "council", "bridge", "review", "comedy", "author", "reply", "headline", "wonderful",
    "isn't", "we've", "I'LL", "they'd", "he's", "naïve", "façade", "Übermensch", "coöperate",
    "résumé", "straße", "smörgåsbord", "co-op", "e-mail", "don’t", "rock'n'roll", "GPU",
    "iPhone", "snake_case", "camelCase", "HTTPServer", "x86_64", "v2.0.1", "C++", "#hashtag",
    "@user",
)  # fmt: skip
_SCRIPTS = (
    "日本語の文章です。", "中文沒有空格，一二三。", "한국어 문장입니다.",
    "Русский текст, ещё один.",
    "Ελληνικό κείμενο", "نص عربي قصير", "טקסט בעברית", "हिन्दी वाक्य", "ข้อความภาษาไทย",
    "Tiếng Việt có dấu", "ქართული ტექსტი", "አማርኛ ጽሑፍ", "தமிழ் உரை", "Zażółć gęślą jaźń",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝟚𝟘𝟚𝟜", "ｆｕｌｌ　ｗｉｄｔｈ １２３",
)  # fmt: skip
_EMOJI = (
    "😀",
    "👍🏽",
    "👩‍👩‍👧",
    "🇩🇪",
    "🏳️‍🌈",
    "☕️",
    "✓",
    "→",
    "½",
    "²",
    "Ⅻ",
    "٣",
    "१२",
    "①",
    "㊗",
    "…",
    "—",
    "“",
    "€5",
    "№7",
)
_MARKERS = (
    "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|im_start|>user\n", "<|im_end|>\n",
    "<tool_call>", "</tool_call>", "<repo_name>", "<file_sep>", "<|fim_prefix|>", "<|im_start",
    "|im_end|>", "<s>", "</s>", "[INST]", "<unk>", "<think>", "</think>", "<|assistant|>",
)  # fmt: skip
_SPACES = (
    " ",
    "  ",
    "   ",
    "\t",
    "\t\t",
    "\n",
    "\n\n",
    "\r\n",
    " \n",
    "\n ",
    "\u00a0",
    "\u3000",
    "\u200b",
    "\u2009",
)
_SIGNS = ".,;:!?()[]{}<>/\\|@#$%^&*-_=+~`'\""


def texts() -> list[Text]:
    """Return more than 500 distinct texts, the same at every call."""
    return list(dict.fromkeys(_all(Random(SEED))))


def prompts() -> list[str]:
    """Return 24 prompts of one to four sentences, invented."""
    rng = Random(SEED)
    subjects = ("The city council", "A small bakery", "Our new neighbour", "The film's director")
    verbs = ("announced", "repaired", "reviewed", "argued about", "forgot", "painted")
    objects = ("a bridge from 1904", "the harbour's 3 cranes", "an old radio play", "half a recipe")
    asks = (
        "Write a headline for this:", "Which of comedy, drama or action fits?",
        "Rate it from 1 to 5:", "Continue the story:", "Explain it to a child:", "Say it shorter:",
    )  # fmt: skip
    return [
        f"{rng.choice(asks)} "
        + " ".join(
            f"{rng.choice(subjects)} {rng.choice(verbs)} {rng.choice(objects)}."
            for _ in range(1 + number % 4)
        )
        for number in range(24)
    ]


def _all(rng: Random) -> Iterator[Text]:
    for digits in range(1, 41):
        number = "".join(rng.choice("0123456789") for _ in range(digits % 12 + 1))
        yield Text(
            "digits",
            rng.choice(("{}", " {}", "in {} there", "${}.99", "{}%", "v{}")).format(number),
        )
    yield from (Text("digits", f"{n:,}") for n in (1000, 22_000, 1_234_567, 10**12))
    for script in _SCRIPTS:
        yield from (Text("scripts", text) for text in (script, f" {script}", f"{script} in 2024"))
    for sign in _EMOJI:
        yield from (
            Text("emoji", text) for text in (sign, f"good {sign}", f"{sign}{sign} ok", f"a{sign}1")
        )
    for marker in _MARKERS:
        yield from (
            Text("markers", t) for t in (marker, f"say {marker} now", f"{marker}hi", f"x{marker}")
        )
    for space in _SPACES:
        yield from (
            Text("white space", text)
            for text in (space, f"a{space}b", f"{space}1 {space}2", f"end{space}", f"({space})")
        )
    yield from _drawn(rng)


def _drawn(rng: Random) -> Iterator[Text]:
    for number in range(DRAWN):
        words = [rng.choice(_WORDS) for _ in range(2 + number % 9)]
        yield Text("words", " ".join(words))
        yield Text("words", " ".join(words).upper() + rng.choice(".!?"))
        yield Text("signs", "".join(rng.choice(_SIGNS + " a1") for _ in range(3 + number % 12)))
        yield Text(
            "code", f"def {words[0]}(x, y={number}):\n    return x[{number}:] + '{words[-1]}'\n"
        )
        pool = (*_WORDS, *_SPACES, *_EMOJI, *_SCRIPTS, *_MARKERS, "7", "42", "2024")
        yield Text("mixed", "".join(rng.choice(pool) for _ in range(3 + number % 8)))
        yield Text(
            "unicode", "".join(chr(rng.choice(_RANGES)[0] + rng.randrange(64)) for _ in range(6))
        )


_RANGES = (
    (0x20,),
    (0xA0,),
    (0x370,),
    (0x400,),
    (0x660,),
    (0x3040,),
    (0x4E00,),
    (0x1F600,),
    (0x2460,),
)
