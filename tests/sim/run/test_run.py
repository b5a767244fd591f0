"""What a run keeps of its command line, wherever a later command starts, and what it imports."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from conf.compose import compose
from sim.run.lifecycle import with_absolute_paths


def test_files_are_noted_from_the_root_and_names_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("shares.csv", "words.json", "nli.jsonl"):
        Path(name).touch()
    for name in ("cloud", "scorer", "data", "built", "auto"):
        Path(name).mkdir()
    config = with_absolute_paths(
        compose(
            [
                "data=data",
                "privacy=per_user",
                "privacy.csv=shares.csv",
                "stream.lexicons=words.json",
                "filters.review=marked.csv",
                "evaluation.bertscore=scorer",
                "model.build.nli_data=nli.jsonl",
                "paths.runs=runs",
            ]
        )
    )
    loaded = with_absolute_paths(compose(["model=qwen2.5", "model.cloud.path=cloud"])).model
    named = (
        config.data,
        config.privacy.csv,
        config.stream.lexicons,
        config.filters.review,  # need not be there yet
        config.evaluation.bertscore,
        config.model.build.nli_data,
        loaded.cloud.path,
        config.paths.runs,
    )
    assert all(os.path.isabs(path) for path in named)  # noqa: PTH117
    assert config.model.device.path == "built"
    assert with_absolute_paths(compose([])).stream.lexicons == "auto"
    assert loaded.device.path.startswith("Qwen/")


def test_a_server_that_needs_no_network_imports_no_deep_learning_library():
    """A run whose networks and generations are cached starts in seconds."""
    script = (
        "import sys\n"
        "import sim.commands.run, sim.run.placement, sim.run.server, strategy.cdcda\n"
        "from models.miniature import build\n"
        "found = {'torch', 'transformers', 'peft', 'bitsandbytes'} & set(sys.modules)\n"
        "assert not found, found\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
