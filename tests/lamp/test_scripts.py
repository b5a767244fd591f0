from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamp import metrics
from lamp.scripts import is_latin, tokens
from lamp.tasks import TASKS


@pytest.mark.parametrize(
    ("text", "latin"),
    [
        ("Old bridge", True),
        ("Élan à Orléans", True),
        ("", True),
        ("5 of 5", True),
        ("2024", True),
        ("港湾大桥", False),
        ("iPhone 在中国上市销售", False),
        ("Новый мост", False),
        ("हिन्दी", False),
        ("😀", False),
        ("éèàù", False),
    ],
)
def test_a_text_is_latin_where_half_of_its_letters_are_a_to_z(text, latin):
    assert is_latin(text) == latin


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Old, bridge 5", ["old", "bridge", "5"]),
        ("港湾 iPhone15", ["港", "湾", "iphone15"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("ＡＢ café", ["ab", "café"]),
        ("a😀b", ["a", "😀", "b"]),
        ("...", []),
    ],
)
def test_tokens_are_words_characters_and_symbols(text, expected):
    assert tokens(text) == expected


def test_a_verbatim_answer_in_another_script_scores_one_beside_lamps_zero():
    score = metrics.score_query(TASKS["lamp_4"], "港湾大桥今日", "港湾大桥今日")
    assert (score.rouge1, score.unicode_rouge1) == (0.0, 1.0)
    pooled = metrics.pooled_metrics(TASKS["lamp_4"], [score], seed=0)
    assert (pooled["rouge1"], pooled["unicode_rouge1"]) == (0.0, 1.0)


def test_a_latin_answer_has_lamps_score_alone():
    score = metrics.score_query(TASKS["lamp_4"], "old bridge", "the old bridge")
    assert score.unicode_rouge1 is None
    assert "unicode_rouge1" not in metrics.pooled_metrics(TASKS["lamp_4"], [score], seed=0)


def test_a_verbatim_copy_in_another_script_is_no_diverse_text():
    assert metrics.rouge_l("港湾大桥今日", "港湾大桥今日") == 1.0
    assert metrics.rouge1("Новый мост", "новый мост") == 1.0


@given(text=st.text())
def test_any_text_has_tokens_of_its_own(text):
    found = tokens(text)
    assert all(found)
    assert metrics.rouge_l(text, text) in (0.0, 1.0)
