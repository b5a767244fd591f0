"""The table of prompts and temperatures adds up, and is measured once."""

from __future__ import annotations

import pytest

from benchmarks import replies
from conf.compose import compose
from conf.errors import ConfigError, DataError
from lamp.records import Pair, UserHistory
from models import sources
from strategy.augmentation import Reply
from strategy.cloud_models import Cloud
from tests.plugins.stand_ins import Generator, NliScorer


class Varied(Generator):
    """Cuts every third reply off, and copies every other one."""

    asked = 0

    def write(self, prompts, seeds, on_done):
        type(self).asked += len(prompts)
        good = super().write(prompts, seeds, on_done)
        return [
            Reply("Input: [cut", 3, finished=False) if place % 3 == 0 else reply
            for place, reply in enumerate(good)
        ]


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setattr(replies, "cloud_here", lambda _: Cloud(Varied(), NliScorer()))
    monkeypatch.setattr(sources, "resolve", lambda config, _: (config, {}))
    monkeypatch.setattr(Varied, "asked", 0)
    words = ["model=qwen2.5", "world=small", "users=4", "augmenter.k=3", "task=lamp_4"]
    return compose([*words, f"paths.cache={tmp_path}"])


def _rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_shares_of_a_row_add_up_to_all_replies(config):
    variants = replies.variants_of("paper,rewrite", "0.7,1.0")
    head, *rows = _rows(replies.run(config, variants, records=6))
    assert [row[:3] for row in rows] == [
        ["paper", "0.7", "18"],
        ["paper", "1", "18"],
        ["rewrite", "0.7", "18"],
        ["rewrite", "1", "18"],
    ]
    assert head[:5] == ["Prompt", "T", "Replies", "Readable", "cut off"]
    for row in rows:
        shares = [float(cell.rstrip("%")) for cell in row[3:]]
        assert shares[0] == pytest.approx(66.7)
        assert sum(shares[1:]) == pytest.approx(100, abs=0.3)


def test_what_was_measured_is_not_asked_again(config):
    variants = replies.variants_of("paper", "0.7")
    first = replies.run(config, variants, records=6)
    asked = Varied.asked
    assert replies.run(config, variants, records=6) == first
    assert Varied.asked == asked == 18


def test_records_come_from_as_many_public_users_as_there_are():
    users = [
        UserHistory(name, (), tuple(Pair(str(n), f"{name}{n}", "y") for n in range(3)), ())
        for name in "abc"
    ]
    drawn = replies.draw_records(users, 4, seed=0)
    assert {pair.input[0] for pair in drawn[:3]} == set("abc")
    assert drawn == replies.draw_records(users, 4, seed=0)
    with pytest.raises(DataError, match="got none"):
        replies.draw_records([], 4, seed=0)


def test_temperatures_are_numbers():
    with pytest.raises(ConfigError, match="expected numbers such as"):
        replies.variants_of("paper", "hot")


def test_what_is_refused_is_one_line(capsys):
    assert replies.main(["task=lamp_44"]) == 2
    assert capsys.readouterr().err.startswith("error: task=lamp_44")
