"""How a run ends where it does not end well: another attempt is named only where it can help."""

from __future__ import annotations

import io

import pytest

from conf.compose import compose
from conf.errors import ConfigError, RunError
from sim.folders import RunFolder
from sim.run import lifecycle
from sim.terminal import PlainConsole


@pytest.mark.parametrize(
    ("error", "helps"),
    [
        (ConfigError("no such model"), False),
        (RunError("the disk is full"), True),
        (KeyboardInterrupt(), True),
        (ZeroDivisionError(), True),
    ],
)
def test_resume_is_named_only_where_the_same_words_may_end_better(
    tmp_path, monkeypatch, capsys, error, helps
):
    def set_up(*_):
        raise error

    monkeypatch.setattr(lifecycle, "set_up", set_up)
    folder = RunFolder(tmp_path / "runs" / "night")
    with pytest.raises(type(error)):
        lifecycle._work(compose([]), object(), folder, PlainConsole(file=io.StringIO()))
    said = capsys.readouterr().err
    assert said == (f"go on with: python -m sim resume run={folder.path}\n" if helps else "")
