"""A checkpoint's width, read where it stands or by transformers."""

from __future__ import annotations

import json

import pytest

from conf.errors import ModelError
from models import loading
from models.checkpoint import hidden_size


def test_the_width_is_what_transformers_reads(qwen2_folder):
    assert hidden_size(qwen2_folder) == loading.config_of(qwen2_folder).hidden_size


def test_another_name_for_the_width_is_left_to_transformers(tmp_path):
    config = {"model_type": "gpt2", "n_embd": 48, "n_head": 4}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert hidden_size(tmp_path) == 48


@pytest.mark.parametrize("content", [None, "no JSON", "[]"])
def test_without_a_checkpoint_the_error_is_that_of_loading(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelError, match=tmp_path.name):
        hidden_size(tmp_path)
