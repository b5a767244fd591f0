"""What a run keeps of its command line does not depend on where a later command starts."""

from __future__ import annotations

import os
from pathlib import Path

from conf.compose import compose
from sim.run import with_absolute_paths


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
                "model.cloud.path=cloud",
                "paths.runs=runs",
            ]
        )
    )
    named = (
        config.data,
        config.privacy.csv,
        config.stream.lexicons,
        config.filters.review,  # need not be there yet
        config.evaluation.bertscore,
        config.model.build.nli_data,
        config.model.cloud.path,
        config.paths.runs,
    )
    assert all(os.path.isabs(path) for path in named)  # noqa: PTH117
    assert config.model.device.path == "built"
    assert with_absolute_paths(compose([])).stream.lexicons == "auto"
    assert with_absolute_paths(compose(["model=qwen2.5"])).model.cloud.path.startswith("Qwen/")
