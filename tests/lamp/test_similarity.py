from __future__ import annotations

from lamp.records import Pair
from lamp.similarity import most_similar


def test_the_most_similar_pair_shares_most_words_and_rather_the_response():
    pair = Pair("a", "red fish blue fish", "1")
    near = Pair("b", "red fish blue dog", "2")
    same_response = Pair("c", "red cat", "1")
    assert most_similar(pair, (pair, near)) == near
    assert most_similar(pair, (pair, near, same_response)) == same_response
    assert most_similar(pair, (pair,)) is None
