"""EDA changes the input's words in four ways, the same in every process."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest
from nltk.corpus.reader.wordnet import WordNetCorpusReader
from nltk.corpus.util import LazyCorpusLoader

from conf.errors import DataError
from lamp import eda

KNOWN = {"quick": ("fast", "rapid"), "fox": ("reynard",), "the": ("a",)}
TEXT = "The quick brown Fox, jumps over the lazy dog"


def synonyms(word: str) -> tuple[str, ...]:
    return KNOWN.get(word, ())


def words(text: str) -> list[str]:
    return sorted(text.lower().replace(",", "").split())


def test_four_variants_are_one_of_each_operation():
    made = eda.variants(TEXT, 4, seed=3, synonyms=synonyms, rate=0.2)
    lengths = sorted(len(text.split()) for text in made)
    assert len(set(made)) == 4
    assert lengths[0] < 9
    assert lengths[1:] == [9, 9, 10]
    assert sum(words(text) == words(TEXT) for text in made) == 1  # the swap


def test_case_and_punctuation_of_a_replaced_word_stay():
    assert eda._swap_core('"Fox,"', "reynard") == '"Reynard,"'
    assert eda._swap_core("--", "") == "--"


def test_stop_words_are_never_replaced():
    texts = eda.variants(TEXT, 40, seed=1, synonyms=synonyms, rate=1.0)
    assert not any(" a " in f" {text.lower()} " for text in texts)


def test_a_seed_means_the_same_variants_whatever_the_hash_order():
    code = (
        "from lamp import eda; find = eda.thesaurus('world');"
        "print(eda.variants('A quiet film about an old war and a spaceship', 6, 5, find, 0.3))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


@pytest.mark.parametrize("text", ["", "word", "  "])
def test_texts_of_no_or_one_word_give_variants_too(text):
    made = eda.variants(text, 5, seed=0, synonyms=synonyms, rate=0.1)
    assert len(made) == 5


def test_the_worlds_thesaurus_knows_the_worlds_words():
    find = eda.thesaurus("world")
    from lamp import world

    word, others = next((word, others) for word, others in world.synonyms().items() if others)
    assert find(word) == others
    assert find("no such word") == ()


def test_wordnets_lemmas_are_sorted_and_leave_the_word_itself_out(monkeypatch):
    synsets = {"car": [["car", "auto"], ["Cable_car", "car"]]}
    found = SimpleNamespace(
        ensure_loaded=lambda: None,
        synsets=lambda word: [
            SimpleNamespace(lemma_names=lambda names=names: names) for names in synsets[word]
        ],
    )
    monkeypatch.setattr("nltk.corpus.wordnet", found)
    assert eda._wordnet()("car") == ("auto", "cable car")


def test_missing_wordnet_is_an_error_that_names_the_download(monkeypatch, tmp_path):
    (tmp_path / "corpora" / "wordnet").mkdir(parents=True)
    for folder, found in (("nowhere", "is not on this machine"), ("", "cannot be read")):
        unread = LazyCorpusLoader("wordnet", WordNetCorpusReader, object())
        monkeypatch.setattr("nltk.data.path", [str(tmp_path / folder)])
        monkeypatch.setattr("nltk.corpus.wordnet", unread)
        with pytest.raises(DataError, match=rf"{found}.*python -m nltk\.downloader wordnet"):
            eda._wordnet()
