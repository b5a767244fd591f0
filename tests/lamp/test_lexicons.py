from __future__ import annotations

import json

import pytest

from conf.errors import DataError
from lamp import world
from lamp.dialogue.lexicons import Lexicon, read_lexicons, telling_words, topics, write_lexicons

TEXTS = {
    "medical": ["the fever and the dose", "a dose against fever", "the fever fell"],
    "travel": ["the train and the hotel", "a hotel by the train", "the train fell"],
}


def test_telling_words_part_the_domains_and_common_words_do_not():
    medical, travel = telling_words(TEXTS, size=2)
    assert medical == Lexicon("medical", ("fever", "dose"))
    assert travel == Lexicon("travel", ("train", "hotel"))


def test_telling_words_need_domains_that_differ():
    with pytest.raises(DataError, match="1 domains without a telling word"):
        telling_words({"all": TEXTS["medical"]}, size=2)


def test_topics_group_texts_without_domains_the_same_for_the_same_seed():
    texts = [text for own in TEXTS.values() for text in own]
    found = topics(texts, 2, seed=3)
    assert sorted(len(group) for group in found.values()) == sorted(
        len(group) for group in topics(texts[::-1], 2, seed=3).values()
    )
    assert sum(map(len, found.values())) == 6
    with pytest.raises(DataError, match="got none"):
        topics(["...", ""], 2, seed=3)


def test_a_file_of_lexicons_comes_back(tmp_path):
    path = tmp_path / "words.json"
    write_lexicons(path, (Lexicon("b", ("x", "y")), Lexicon("a", ("z",))))
    assert {each.domain: each.words for each in read_lexicons(path)} == {
        "b": ("x", "y"),
        "a": ("z",),
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "expected a file, there is none"),
        ("{", "line 1 column 2: expected JSON"),
        ("[]", "got list without domains"),
        ("{}", "got dict without domains"),
        (json.dumps({"a": "word"}), "domain 'a': got no list of words"),
    ],
)
def test_a_bad_file_is_refused_with_the_remedy(tmp_path, content, message):
    path = tmp_path / "words.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=message) as error:
        read_lexicons(path)
    assert "set stream.lexicons" in str(error.value)


@pytest.mark.parametrize("task", sorted(world.DOMAIN_OF_TASK))
def test_the_worlds_lexicons_share_no_word(task):
    found = world.lexicons(task)
    words = [word for each in found for word in each.words]
    assert len(found) > 1
    assert len(set(words)) == len(words)
