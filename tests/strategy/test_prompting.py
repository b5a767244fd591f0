"""A prompt is a template filled with one record; what comes back is read as it was asked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf.compose import compose
from conf.errors import ConfigError, DataError
from conf.schema import AugmenterConfig
from lamp.prompts import augmentation_prompt
from lamp.records import Pair, UserHistory
from lamp.tasks import TASKS
from strategy.parsing import Parsed
from strategy.prompting import TEMPLATES, make_prompt, read_reply

HEADLINE, TAGGING, TWEET = TASKS["lamp_4"], TASKS["lamp_2"], TASKS["lamp_7"]
PUBLIC = [
    UserHistory(f"u{number}", (), (Pair("p", f"text {number}", f"title {number}"),), ())
    for number in range(9)
]


def _config(prompt: str, **more) -> AugmenterConfig:
    return AugmenterConfig(prompt=prompt, **more)


@given(st.text(), st.text())
def test_the_papers_prompt_is_the_papers_to_the_last_byte(x, y):
    pair = Pair("1", x, y)
    assert make_prompt(_config("paper"), HEADLINE).ask(pair) == augmentation_prompt(pair)


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_template_shows_the_record_as_it_is(name):
    prompt = make_prompt(_config(name), HEADLINE, PUBLIC)
    asked = prompt.ask(Pair("1", "{y} is {{y}} \\1", "{x}"))
    assert "{y} is {{y}} \\1" in asked
    assert ("{x}" in asked) == (not prompt.asks_for_text)


def test_only_the_paraphrase_asks_for_a_text_alone():
    asks = {name: make_prompt(_config(name), HEADLINE, PUBLIC).asks_for_text for name in TEMPLATES}
    assert asks == {"paper": False, "rewrite": False, "few_shot": False, "paraphrase": True}


def test_examples_are_records_of_different_public_users_drawn_by_the_seed():
    prompt = make_prompt(_config("few_shot", examples=3), HEADLINE, PUBLIC, seed=1)
    assert prompt.examples.count("Input: [text ") == 3
    assert prompt == make_prompt(_config("few_shot", examples=3), HEADLINE, PUBLIC[::-1], seed=1)
    other = make_prompt(_config("few_shot", examples=3), HEADLINE, PUBLIC, seed=2)
    assert other.identity != prompt.identity


def test_a_template_may_be_a_file_and_its_content_names_it(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("One of {labels}, as {{label}}: {x} -> {y}\n", encoding="utf-8")
    prompt = make_prompt(_config(str(path)), TAGGING)
    asked = prompt.ask(Pair("1", "a film", "comedy"))
    assert asked.startswith("One of sci-fi, based on a book, ")
    assert asked.endswith(", as {label}: a film -> comedy")
    path.write_text("Like {x}: {y}\n", encoding="utf-8")
    assert make_prompt(_config(str(path)), TAGGING).identity != prompt.identity


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_template_is_the_same_in_every_encoding_and_with_every_line_end(tmp_path, encoding):
    text, path = "Über {x}:\n{y}", tmp_path / "mine.txt"
    path.write_bytes(text.encode())
    plain = make_prompt(_config(str(path)), HEADLINE)
    path.write_bytes(f"{text}\n".replace("\n", "\r\n").encode(encoding))
    assert make_prompt(_config(str(path)), HEADLINE) == plain


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"Like {x} and {z}", r"unknown slot \{z\}; known are \{x\}, \{y\}, \{labels\}"),
        (b"Write something.", r"expected the slot \{x\}"),
        (b"{x} of {labels}", "lamp_4 has no labels"),
        (b"{x} like {examples}", "needs records of public users"),
        (b"caf\xe9 {x}", "line 1, byte 4: expected UTF-8, got 0xe9"),
    ],
)
def test_a_template_that_cannot_be_filled_is_refused(tmp_path, text, message):
    path = tmp_path / "mine.txt"
    path.write_bytes(text)
    with pytest.raises((ConfigError, DataError), match=message):
        make_prompt(_config(str(path)), HEADLINE)


def test_a_template_that_is_not_there_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match="paraphrase"):
        make_prompt(_config("paraphrases"), HEADLINE)


@pytest.mark.parametrize(
    ("labels", "written", "expected"),
    [
        ("aligned", "Comedy.", Parsed("a b", "comedy")),
        ("aligned", "action", Parsed(reason="label_not_aligned")),
        ("aligned", "western", Parsed(reason="label_outside_set")),
        ("written", "action", Parsed("a b", "action")),
        ("source", "action", Parsed("a b", "comedy")),
        ("source", "western", Parsed("a b", "comedy")),
        ("source", "", Parsed(reason="no_response")),
    ],
)
def test_a_label_is_aligned_or_taken_as_configured(labels, written, expected):
    source, prompt = Pair("1", "x", "comedy"), make_prompt(_config("paper"), TAGGING)
    reply = f"Input: [a b], Response: [{written}]"
    assert read_reply(TAGGING, source, prompt, labels, reply, complete=True) == expected


def test_labels_of_free_text_are_taken_as_written():
    prompt = make_prompt(_config("paper"), HEADLINE)
    for labels in ("aligned", "written", "source"):
        reply = "Input: [a b], Response: [new]"
        parsed = read_reply(HEADLINE, Pair("1", "x", "y"), prompt, labels, reply, complete=True)
        assert parsed == Parsed("a b", "new")


def test_a_paraphrase_keeps_the_shared_response():
    prompt = make_prompt(_config("paraphrase"), TAGGING)
    parsed = read_reply(
        TAGGING, Pair("1", "x", "comedy"), prompt, "aligned", "The paraphrase:\n\na b", True
    )
    assert parsed == Parsed("a b", "comedy")


def test_a_prefill_belongs_to_the_reply():
    prompt = make_prompt(_config("paper", prefill="Input: ["), TWEET)
    assert read_reply(TWEET, Pair("1", "x", ""), prompt, "aligned", "a b]", True) == Parsed("a b")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["augmenter.prompt=rewrite"], "has learned the prompt 'paper' alone"),
        (["augmenter.examples=3"], "no effect beside augmenter.prompt=paper"),
        (["augmenter=openai", "augmenter.prefill=a"], "augmenter.prefill exists for models"),
        (["augmenter=replay"], "augmenter.file is required"),
        (["augmenter.file=x"], "no effect without augmenter=replay"),
        (["augmenter=replay", "augmenter.file=x", "augmenter.sampling.top_k=1"], "no effect while"),
    ],
)
def test_settings_without_effect_are_refused(words, message):
    with pytest.raises(ConfigError, match=message):
        compose(words)


def test_how_labels_are_read_is_refused_where_a_task_has_none():
    assert make_prompt(_config("paper", labels="written"), TAGGING).labels
    with pytest.raises(ConfigError, match=r"augmenter.labels=written has no effect for lamp_7"):
        make_prompt(_config("paper", labels="written"), TWEET)
