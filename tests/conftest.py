"""Fixtures and settings of the whole test tree."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# The same examples in every run, and no clock: a busy machine must not fail a test.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


def pytest_configure(config: pytest.Config) -> None:
    """Give the tests, and the libraries they import, a home folder and a cache of their own.

    What `make pretrained` fetched, and what was made of it, is linked into that cache.
    """
    if "PYTEST_XDIST_WORKER" in os.environ:
        return  # its parent's environment
    from conf.compose import compose

    theirs = Path(compose([]).paths.cache).absolute()
    home = tempfile.TemporaryDirectory(prefix="home-")
    config.add_cleanup(home.cleanup)
    ours = Path(home.name) / "cache"
    for found in [*theirs.glob("pretrained/*"), *theirs.glob("checkpoints/*")]:
        link = ours / found.relative_to(theirs)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(found)
    os.environ.update(HOME=home.name, CDCDA_CACHE=str(ours))


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """Folder with real LaMP records beside the repository; the test is skipped where it is not."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not (folder / "lamp").is_dir():
        pytest.skip("needs real LaMP records in ../shared/lamp, which is not there")
    return folder


@pytest.fixture(scope="session")
def pretrained_cache() -> Path:
    """The cache with what `make pretrained` fetches.

    Without it the test is skipped; in continuous integration (CI=true) it fails, as nothing would
    show that it never runs there.
    """
    from conf.compose import compose
    from models.pretrained import WHEELS, is_fetched

    cache = Path(compose([]).paths.cache).expanduser().absolute()
    missing = [wheel.about for wheel in WHEELS if not is_fetched(wheel, cache)]
    if missing:
        reason = f"needs {' and '.join(missing)}; run `make pretrained`"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return cache


@pytest.fixture(scope="session")
def qwen2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A read-only tiny Qwen2 checkpoint in Hugging Face layout."""
    from tests.plugins.qwen2 import write_folder

    return write_folder(tmp_path_factory.mktemp("qwen2"))


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of random weights; its path holds "t5", which bert-score takes for a model type."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = tmp_path_factory.mktemp("beside-t5") / "bert"
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *["the", "cat", "sat", "on", "a", "mat", "dog"],
    ]
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=34,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder)
    vocabulary = {word: number for number, word in enumerate(words)}
    BertTokenizer(vocab=vocabulary).save_pretrained(folder)
    return folder


@pytest.fixture
def forget_plugins() -> Callable[[], None]:
    """Makes this process forget every plugin and what it registered, as a new process would."""
    from conf.groups import ADDED
    from conf.plugins import PREFIX
    from lamp.tasks import TASKS
    from protocol.wire import WIRE_TABLE
    from strategy.methods import METHODS

    tables: tuple[dict[str, Any], ...] = (METHODS, WIRE_TABLE, TASKS, ADDED)
    before = [dict(table) for table in tables]

    def forget() -> None:
        for table, entries in zip(tables, before, strict=True):
            table.clear()
            table.update(entries)
        for name in [name for name in sys.modules if name.startswith(PREFIX)]:
            del sys.modules[name]

    return forget


@pytest.fixture
def registries(forget_plugins: Callable[[], None]) -> Iterator[None]:
    """What a test registers is gone behind it: methods, their wire rows, tasks, plugins."""
    yield
    forget_plugins()
