"""``python -m sim lexicons``: make a file for ``stream.lexicons`` from any texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from conf.compose import compose
from conf.words import read_words, required, whole_number
from lamp.dialogue.dialogues import read_folder
from lamp.dialogue.lexicons import telling_words, topics, write_lexicons
from sim.terminal import PlainConsole
from storage.text_files import read_text

SHOWN_WORDS = 8
MOST = 1_000_000  # words or domains
USAGE = """\
python -m sim lexicons texts=<file or folder> out=<file>.json [words=40] [domains=6]

Finds the words that tell one domain from the others. texts may be
  a folder of .txt files    each file is a domain, named as the file
  one .txt file             its lines are grouped into so many domains by topic
  files of dialogues        JSON, CSV or Parquet as for task=dialogue, with their own domains

Then: python -m sim methods=[dac24] stream.lexicons=<file>.json"""


def main(argv: Sequence[str]) -> int:
    """Write the lexicons that ``argv`` asks for.

    Raises:
        ConfigError: If a word is refused.
        DataError: If the texts cannot be used.
    """
    console = PlainConsole()
    if {"-h", "--help"} & set(argv):
        console.print(USAGE)
        return 0
    values, _ = read_words("lexicons", argv, ("texts", "out", "words", "domains"))
    source = Path(required("lexicons", values, "texts", "notes.txt")).expanduser()
    out = Path(required("lexicons", values, "out", "lexicons.json")).expanduser()
    defaults = compose(()).stream
    count, size = (
        whole_number("lexicons", key, values.get(key, str(default)), MOST)
        for key, default in (
            ("domains", defaults.lexicon_domains),
            ("words", defaults.lexicon_words),
        )
    )
    texts = texts_by_domain(source)
    if len(texts) == 1:
        texts = topics([text for own in texts.values() for text in own], count, seed=0)
    lexicons = telling_words(texts, size)
    write_lexicons(out, lexicons)
    for each in lexicons:
        shown = ", ".join(each.words[:SHOWN_WORDS])
        console.print(f"{each.domain}: {len(each.words)} words: {shown}, ...")
    console.print(f"Use them: python -m sim methods=[dac24] stream.lexicons={out}")
    return 0


def texts_by_domain(source: Path) -> dict[str, list[str]]:
    """Domain -> its texts, from plain text files or from files of dialogues.

    Raises:
        DataError: If there is nothing that can be read.
    """
    paths = sorted(source.glob("*.txt")) if source.is_dir() else [source]
    if paths and all(path.suffix == ".txt" and path.is_file() for path in paths):
        return {path.stem: read_text(path).splitlines() for path in paths}
    found: dict[str, list[str]] = {}
    for dialogue in read_folder(source):
        found.setdefault(dialogue.domain, []).extend((dialogue.question, dialogue.answer))
    return found
