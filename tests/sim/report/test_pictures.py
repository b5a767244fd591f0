"""Pictures of texts from outside: as they are, and one word of what the font lacks."""

from __future__ import annotations

import logging

from matplotlib.figure import Figure

from sim.report import pictures


def titled(title: str) -> Figure:
    figure = Figure(figsize=(2, 1))
    figure.add_subplot().set_title(title)
    return figure


def test_missing_glyphs_are_told_once(tmp_path, caplog):
    pictures._tell_missing_glyphs.cache_clear()
    with caplog.at_level(logging.WARNING):
        for name in ("a.png", "b.png"):
            pictures.save(titled("\u5317\u4eac \U0001f600"), tmp_path / name)
    assert [each.message for each in caplog.records if "boxes" in each.message] == [
        "some characters are boxes in the pictures: the font lacks them; tables have them all"
    ]


def test_dollars_and_controls_are_no_mathematics_and_no_control(tmp_path):
    path = pictures.save(titled("$5_$ \x07 [/red]"), tmp_path / "a.png")
    assert path.stat().st_size > 0
    assert path.with_suffix(".svg").stat().st_size > 0
