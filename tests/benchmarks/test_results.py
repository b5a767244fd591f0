"""Groups of docs/results: what they run can be run, and a finished run is not run again."""

from __future__ import annotations

import pytest

from benchmarks import results
from conf.compose import compose
from conf.errors import ConfigError

GROUPS = results.read_groups(results.GROUPS)
SLOTS = {"data": "d", "cloud": "c.gguf", "device": "s.gguf", "nli": "n"}


def given(group: results.Group) -> dict[str, str]:
    return SLOTS if any("={" in word for word in group.runs[0]) else {}


@pytest.mark.parametrize("group", GROUPS.values(), ids=list(GROUPS))
def test_every_run_of_a_group_is_a_configuration_without_a_sweep_left(group):
    runs = results.filled(group, given(group))
    assert len({tuple(run) for run in runs}) == len(runs)
    for words in runs:
        config = compose(words)
        swept = {entry.partition("=")[0] for entry in config.sweep}
        assert swept <= {word.partition("=")[0] for word in words}


def test_slots_are_filled_with_what_the_command_line_gives():
    (first, *_) = results.filled(GROUPS["headlines"], SLOTS)
    assert {"data=d", "model.cloud.path=c.gguf", "model.nli.path=n"} <= {*first}


@pytest.mark.parametrize("words", [{}, {**SLOTS, "more": "x"}, {"data": "d"}])
def test_missing_and_unknown_slots_are_refused(words):
    with pytest.raises(ConfigError, match="cloud=<path> data=<path> device=<path> nli=<path>"):
        results.filled(GROUPS["headlines"], words)


def test_unknown_group_lists_the_groups(capsys):
    assert results.main(["headline"]) == 2
    shown = capsys.readouterr()
    assert "table3" in shown.out
    assert "headlines" in shown.err
