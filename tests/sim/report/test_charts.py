"""The charts: what they are made from, and that they are made as files."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.compose import compose
from sim.report import pictures
from sim.report.charts import curves_figure, figures
from sim.report.figure import colour_of
from sim.report.layout import Panel, Point, Series
from sim.report.pooling import summarise
from sim.report.report import write_report
from sim.report.run_records import read_run
from sim.report.trend import ratio_trend
from sim.results import load_run
from sim.statistics import Estimate, Resampling
from storage import jsonlines

PNG = b"\x89PNG"
DRAW = Resampling(resamples=500, confidence=0.95, seed=0)


def names(folder) -> list[str]:
    return sorted(path.name for path in (folder / "plots").glob("*.png"))


def panel(title: str = "t", label: str = "l") -> Panel:
    points = (Point(0.0, Estimate(0.5, 0.4, 0.6, ())), Point(1.0, Estimate(0.6, None, None, ())))
    level = Series("device", (), Estimate(0.3, None, None, ()))
    return Panel(title, "x", "rouge1", (Series("cdcda", points, label=label, dashed=True), level))


def test_every_chart_is_a_file(make_run):
    folder = make_run(task="lamp_3", users=12, missing={"cdcda": ("user-003",)})
    write_report([folder])
    expected = ["filters", "gains", "losses", "phases", "scores", "wire"]
    assert names(folder) == [f"{name}.png" for name in expected]
    for path in (folder / "plots").glob("*.png"):
        assert path.read_bytes().startswith(PNG)
        assert path.with_suffix(".svg").read_text(encoding="utf-8").startswith("<svg")


def test_same_numbers_same_bytes(tmp_path):
    spec = curves_figure("a", "b", [panel()]).spec
    first, second = (pictures.save(spec, tmp_path / name) for name in ("a.png", "b.png"))
    assert first.read_bytes() == second.read_bytes()
    assert first.with_suffix(".svg").read_bytes() == second.with_suffix(".svg").read_bytes()


def test_single_user_and_single_query_are_drawn(make_run):
    drawn = figures(summarise([read_run(make_run(users=1, queries=1))]))
    assert {"scores", "losses", "gains"} <= {figure.name for figure in drawn}


def test_curves_have_bands_levels_and_dashes():
    spec = curves_figure("curves", "Curves", [panel(label="one"), panel("second", "two")]).spec
    first, second = spec["concat"]
    assert (first["title"], second["title"]) == ("t", "second")
    marks = [layer["mark"]["type"] for layer in first["layer"]]
    assert marks == ["rule", "area", "line"]
    scale = first["layer"][2]["encoding"]["strokeDash"]["scale"]
    assert dict(zip(scale["domain"], scale["range"], strict=True)) == {
        "one": [6, 4], "device": [1, 0], "two": [6, 4],
    }  # fmt: skip
    colours = first["layer"][1]["encoding"]["color"]["scale"]
    assert colours["range"][0] == colour_of("cdcda")
    assert curves_figure("none", "None", [Panel("t", "x", "rouge1", ())]) is None


def test_trend_of_few_ratios_is_the_mean_of_each():
    found = ratio_trend([0.5, 0.5, 1.0, 1.0], [0.1, 0.3, 0.6, 0.8], DRAW)
    assert list(found.ratios) == [0.5, 1.0]
    assert list(found.middle) == pytest.approx([0.2, 0.7])


def test_trend_of_many_ratios_is_the_least_squares_line():
    ratios = np.linspace(0, 1, 30)
    values = 0.2 + 0.3 * ratios + np.random.default_rng(0).normal(0, 0.02, 30)
    found = ratio_trend(list(ratios), list(values), DRAW)
    slope, start = np.polyfit(ratios, values, 1)
    assert found.middle[0] == pytest.approx(start)
    assert found.middle[-1] == pytest.approx(start + slope)
    assert (found.low < found.middle).all()
    assert (found.middle < found.high).all()


def test_trend_of_few_users_joins_no_dots():
    found = ratio_trend([0.1, 0.4, 0.6, 1.0], [0.1, 0.9, 0.1, 0.9], DRAW)
    assert len(found.ratios) > 4
    assert np.ptp(np.diff(found.middle)) == pytest.approx(0)
    assert list(ratio_trend([0.5], [0.1], DRAW).middle) == [0.1]


def test_only_arms_that_filter_are_drawn_with_filters(make_run):
    run = read_run(make_run(users=4, methods=("cdcda", "cdcda_unfiltered")))
    (drawn,) = [figure for figure in figures(summarise([run])) if figure.name == "filters"]
    assert {row["arm"] for row in next(iter(drawn.spec["datasets"].values()))} == {"cdcda"}


def test_the_best_scores_are_all_named(make_run):
    folder = make_run(users=4, methods=("device", "direct_ft"))
    lines = (folder / "answers.jsonl").read_text().splitlines()
    same = [line for line in lines if '"device"' in line]
    twins = [line.replace('"device"', '"direct_ft"') for line in same]
    (folder / "answers.jsonl").write_text("\n".join(same + twins) + "\n")
    assert "that of device, direct_ft." in figures(summarise([read_run(folder)]))[0].alt


def test_loss_curves_keep_their_ends(make_run):
    run = read_run(make_run(users=3))
    (drawn,) = [figure for figure in figures(summarise([run])) if figure.name == "losses"]
    rows = next(iter(drawn.spec["datasets"].values()))
    own = [row for row in rows if row["arm"] == "direct_ft"]
    losses = [line.losses for (arm, _), line in run.adaptations.items() if arm == "direct_ft"]
    assert own[0]["mean"] == pytest.approx(np.mean([each[0] for each in losses]), abs=1e-4)
    assert own[-1]["mean"] == pytest.approx(np.mean([each[-1] for each in losses]), abs=1e-4)


def test_fonts_are_told_of_once(tmp_path, caplog):
    pictures._tell_of_fonts.cache_clear()
    with caplog.at_level(logging.WARNING):
        for name in ("a.png", "b.png"):
            pictures.save(curves_figure("a", "b", [panel("\u5317\u4eac")]).spec, tmp_path / name)
    assert len([each for each in caplog.records if "boxes" in each.message]) == 1


def test_nothing_in_a_text_is_markup_in_a_picture(tmp_path):
    path = pictures.save(
        curves_figure("a", "b", [panel("$5_$ <b>x</b> \x07")]).spec, tmp_path / "a.png"
    )
    drawn = path.with_suffix(".svg").read_text(encoding="utf-8")
    assert "$5_$ &lt;b&gt;x&lt;/b&gt; \\x07" in drawn


def test_every_picture_shows_every_text(tmp_path):
    @settings(max_examples=50)
    @given(title=st.text(max_size=12), label=st.text(min_size=1, max_size=12))
    def check(title, label):
        spec = curves_figure("a", "b", [panel(title, label)]).spec
        assert pictures.save(spec, tmp_path / "a.png").read_bytes().startswith(PNG)

    check()


def drawn(folder, name: str):
    found = {figure.name: figure for figure in figures(summarise([read_run(folder)]))}
    return found.get(name)


def test_an_audit_is_drawn_with_its_coin(make_run):
    folder = make_run(users=3, methods=("device", "direct_ft", "cdcda"))
    assert drawn(folder, "leakage") is None
    bits = {"shared": [1.0, 2.0], "unshared": [0.5]}
    rows = [
        {"arm": arm, "user": f"user-{n:03d}", "exposure": bits, "auc": auc}
        for n in range(3)
        for arm, auc in (
            ("cloud texts", {}),
            ("cdcda", {"shared": 0.9, "unshared": 0.6 + n / 10, "others": 0.5}),
        )
    ]
    jsonlines.append(folder / "leakage.jsonl", rows)
    figure = drawn(folder, "leakage")
    assert (
        "AUC, mean over users: 0.500 to 0.900, the largest for shared records of cdcda"
        in figure.alt
    )
    exposure, auc = figure.spec["concat"]
    data = figure.spec["datasets"]
    means = {
        (row["arm"], row["kind"]): row["value"] for row in data[auc["layer"][0]["data"]["name"]]
    }
    assert means == pytest.approx(
        {("cdcda", "shared"): 0.9, ("cdcda", "unshared"): 0.7, ("cdcda", "others"): 0.5}
    )
    assert data[auc["layer"][2]["data"]["name"]] == [{"coin": 0.5}]
    assert {row["arm"] for row in data[exposure["data"]["name"]]} == {
        "cloud texts", "cdcda",
    }  # fmt: skip
    assert load_run(folder).leakage.canaries.sum() == 3 * 2 * 3


def test_kinds_of_devices_are_drawn_where_there_are_several(make_run):
    assert drawn(make_run("alike", users=3), "devices") is None
    mixed = compose(["devices=mixed"]).devices
    figure = drawn(make_run("mixed", users=10, devices=mixed), "devices")
    titles = [part["encoding"]["x"]["title"] for part in figure.spec["concat"]]
    assert titles[1:] == ["adapting, simulated seconds", "downloading, simulated seconds"]
    assert all(profile.name in figure.alt for profile in mixed.profiles)


def test_streams_are_drawn_where_no_layout_does_so(make_run):
    folder = make_run(users=3, methods=("device", "dac24"))
    assert drawn(folder, "stream") is None
    rows = list(jsonlines.read(folder / "adaptations.jsonl"))
    (folder / "adaptations.jsonl").unlink()
    curves = [
        row | {"curve_seen": [0, 75], "curve": [0.1, 0.2 + n / 10]} for n, row in enumerate(rows)
    ]
    jsonlines.append(folder / "adaptations.jsonl", curves)
    figure = drawn(folder, "stream")
    assert "dac24 from 0.100 to 0.300" in figure.alt
