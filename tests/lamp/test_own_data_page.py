"""docs/own-data.md works as it stands: its files load, its plugins register."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent

import pytest

from conf import plugins
from conf.compose import compose
from lamp.dataset import load
from lamp.records import Pair, ProfileItem, Query
from lamp.tasks import TASKS, make_pair, query_text, task, training_prompt
from protocol.wire import WIRE_TABLE
from strategy.arms import make_arms
from strategy.recipes import RecipeInputs

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


@pytest.fixture
def load_block(registries, tmp_path):
    def load_block(number: int) -> None:
        path = tmp_path / f"block{number}.py"
        path.write_text(blocks("python")[number], encoding="utf-8")
        plugins.load([str(path)])

    return load_block


def test_the_pages_task_file_registers_a_task_that_makes_pairs_and_reads_queries(load_block):
    load_block(0)
    mail = task(compose(["task=mail"]).task)
    pair = make_pair(mail, ProfileItem("i", {"body": "See you.", "subject": "Bye"}), max_words=9)
    prompt, completion = training_prompt(mail, pair)
    assert (prompt, completion) == ("Write the subject line of this mail: See you.", "Bye")
    assert query_text(mail, Query("q", prompt, "Bye")) == "See you."


def test_the_pages_methods_register_with_their_recipe_and_wire_row(load_block):
    load_block(1)
    long_ft, all_pairs = make_arms(["long_ft", "all_pairs"], None)
    assert long_ft.recipe(RecipeInputs()).epochs == 4
    assert WIRE_TABLE["long_ft"].up == frozenset()
    assert all_pairs.method.needs == WIRE_TABLE["all_pairs"]


@pytest.mark.parametrize("name", [*TASKS])
def test_the_page_lists_the_fields_of_every_task(name):
    row = re.search(rf"^\| `{name}` \|.*$", PAGE.read_text(encoding="utf-8"), re.MULTILINE).group()
    assert all(f"`{field}`" in row for field in TASKS[name].fields)
