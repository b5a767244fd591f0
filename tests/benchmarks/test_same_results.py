"""Runs of one seed are the same; another loss, score, byte or missing user is found."""

import json

import pytest

from benchmarks.same_results import main
from conf.errors import ConfigError
from tests.sim.conftest import write_run


@pytest.fixture
def runs(tmp_path):
    return [write_run(tmp_path / name, users=3) for name in ("before", "after")]


def test_runs_of_one_seed_are_the_same(runs, capsys):
    assert main(list(map(str, runs))) == 0
    assert capsys.readouterr().out.endswith("the same\n")


@pytest.mark.parametrize(
    ("file", "field", "value"),
    [
        ("answers", "rouge1", 0.123),
        ("adaptations", "losses", [1.0]),
        ("augmentation", "kept", 77),
        ("ledger", "bytes", 1),
    ],
)
def test_one_other_number_is_found(runs, capsys, file, field, value):
    path = runs[1] / f"{file}.jsonl"
    first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([json.dumps(json.loads(first) | {field: value}), *rest]) + "\n")
    assert main(list(map(str, runs))) == 1
    assert f"{file:<14}" in capsys.readouterr().out


def test_a_missing_line_is_found(runs):
    path = runs[1] / "answers.jsonl"
    path.write_text("\n".join(path.read_text().splitlines()[1:]) + "\n")
    assert main(list(map(str, runs))) == 1


def test_no_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="usage"):
        main([str(tmp_path), str(tmp_path)])
