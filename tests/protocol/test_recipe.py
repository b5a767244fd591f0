"""Recipes from elsewhere are checked."""

from __future__ import annotations

import pytest

from conf.errors import ProtocolError
from protocol.recipe import PLAIN, recipe_from_json


def test_the_empty_recipe_is_the_plain_one():
    assert recipe_from_json("{}") == PLAIN


@pytest.mark.parametrize("text", ["", "[1]", '{"local": "everything"}', '{"k": 0}', '{"ratio": 2}'])
def test_what_is_no_recipe_is_refused(text):
    with pytest.raises(ProtocolError, match="recipe: expected a Recipe as JSON"):
        recipe_from_json(text)
