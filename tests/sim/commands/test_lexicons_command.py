from __future__ import annotations

import json

import pytest

from conf.errors import ConfigError, DataError
from sim.commands.lexicons import main

MEDICAL = "the fever rose\na fever needs a dose\nno dose no cure\n"
TRAVEL = "the train left\na train to the hotel\nthe hotel is full\n"


def test_text_files_are_domains_named_after_them(tmp_path, capsys):
    (tmp_path / "medical.txt").write_text(MEDICAL)
    (tmp_path / "travel.txt").write_text(TRAVEL)
    out = tmp_path / "made" / "lexicons.json"
    assert main([f"texts={tmp_path}", f"out={out}", "words=2"]) == 0
    assert json.loads(out.read_text()) == {
        "medical": ["dose", "fever"],
        "travel": ["hotel", "train"],
    }
    assert "stream.lexicons=" in capsys.readouterr().out


def test_one_text_file_is_grouped_into_topics(tmp_path):
    (tmp_path / "all.txt").write_text(MEDICAL + TRAVEL)
    out = tmp_path / "lexicons.json"
    main([f"texts={tmp_path / 'all.txt'}", f"out={out}", "domains=2"])
    assert 1 <= len(json.loads(out.read_text())) <= 2


def test_dialogues_bring_their_domains(tmp_path):
    rows = [
        {"question": line, "answer": "yes", "domain": domain}
        for domain, text in (("medical", MEDICAL), ("travel", TRAVEL))
        for line in text.splitlines()
    ]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, rows)))
    out = tmp_path / "lexicons.json"
    main([f"texts={tmp_path / 'd.jsonl'}", f"out={out}"])
    assert set(json.loads(out.read_text())) == {"medical", "travel"}


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (["out=a.json"], ConfigError, "texts is missing"),
        (["texts=x", "out=a.json", "words=many"], ConfigError, "words must be a whole number"),
        (["texts=nowhere", "out=a.json"], DataError, "there is none"),
        (["txets=x"], ConfigError, "Did you mean 'texts'"),
    ],
)
def test_bad_words_are_refused(tmp_path, monkeypatch, words, error, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        main(words)
