"""docs/own-data.md works as it stands: its files load, its task record makes pairs."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent

import pytest
import yaml

from lamp.dataset import load
from lamp.records import Pair, ProfileItem, Query
from lamp.tasks import TASKS, Task, make_pair, query_text, training_prompt

PAGE = Path(__file__).parents[2] / "docs" / "own-data.md"


def blocks(language: str) -> list[str]:
    pattern = rf"^( *)```{language}\n(.*?)^\1```"
    found = re.findall(pattern, PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [dedent(block) for _, block in found]


def test_the_pages_two_files_are_data_of_two_users(make_config, tmp_path):
    folder = tmp_path / "data" / "LaMP_4"
    folder.mkdir(parents=True)
    for name, block in zip(("questions", "outputs"), blocks("json"), strict=True):
        (folder / f"dev_{name}.json").write_text(block, encoding="utf-8")
    data = load(make_config("lamp_4"))
    (ann,) = data.targets
    (bob,) = data.public
    assert data.split == "time"
    assert ann.pairs[0] == Pair("ann-p1", "The market moves to the square.", "Market on the move!")
    assert ann.queries[0].gold == "Farewell, old bridge!"
    assert bob.user_id == "bob"


def test_the_pages_task_record_makes_pairs_and_reads_queries():
    tasks: dict[str, Task] = {}
    (block,) = blocks("python")
    exec(block, {"TASKS": tasks, "Task": Task})
    mail = tasks["mail"]
    pair = make_pair(mail, ProfileItem("i", {"body": "See you.", "subject": "Bye"}), max_words=9)
    prompt, completion = training_prompt(mail, pair)
    assert (prompt, completion) == ("Write the subject line of this mail: See you.", "Bye")
    assert query_text(mail, Query("q", prompt, "Bye")) == "See you."


def test_the_pages_defaults_are_those_of_a_task_group():
    (block,) = blocks("yaml")
    assert yaml.safe_load(block).keys() == {"name", "max_new_tokens"}


@pytest.mark.parametrize("name", [*TASKS])
def test_the_page_lists_the_fields_of_every_task(name):
    row = re.search(rf"^\| `{name}` \|.*$", PAGE.read_text(encoding="utf-8"), re.MULTILINE).group()
    assert all(f"`{field}`" in row for field in TASKS[name].fields)
