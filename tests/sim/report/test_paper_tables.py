"""The paper's tables from runs: rows, columns, published numbers beside, what stands out."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from conf.schema import ThresholdsConfig
from sim.commands import report as report_command
from sim.report import paper_values
from sim.report.layouts import make_layout
from sim.report.pooling import ratio_curves, summarise
from sim.report.run_records import read_run
from sim.report.tables import fitting

pytestmark = pytest.mark.usefixtures("undrawn")

METHODS = ("cloud", "device", "direct_ft", "eda_ft", "cdcda")


@pytest.fixture
def results_of(make_run):
    def make(**settings):
        return summarise([read_run(make_run(f"run-{settings.get('task', '')}", **settings))])

    return make


def cells(table) -> list[list[str]]:
    return [[cell.text for cell in row] for row in table.rows]


def test_published_rows_are_complete():
    assert {len(row) for row in paper_values.TABLE1.values()} == {11}
    assert paper_values.TABLE1["lamp_2", "accuracy"]["cdcda", 1.0] == 0.336
    mean = sum(paper_values.TABLE2["lamp_2", "accuracy"].values()) / 7
    assert round(mean, 3) == 0.294  # as the paper prints it
    for row, found in paper_values.TABLE3.items():
        assert found["direct_ft", None] == pytest.approx(
            paper_values.TABLE2.get(row, {}).get(0.0, found["direct_ft", None])
        )
        assert found["cdcda", 1.0] == paper_values.TABLE1[row]["cdcda", 1.0]


def test_table1_has_our_row_above_the_papers_in_its_order(results_of):
    results = results_of(task="lamp_2", methods=METHODS, ratios=(0.5, 1.0))
    layout = make_layout("table1", [results])
    table = layout.tables["table1"]
    assert table.head[:4] == ("Task", "", "M_cloud\ntuned", "M_dev.\ntuned")
    assert table.head[-1] == "CDCDA\n-PLM\n100%"
    ours, paper, f1, _ = cells(table)
    assert (ours[:2], paper[:2], f1[:2]) == (
        ["LaMP-2 Acc ↑", "ours"],
        ["", "paper"],
        ["LaMP-2 F1 ↑", "ours"],
    )
    assert " ".join(paper[2:]) == ".248 .017 .319 .009 .243 .277 .296 .265 .283 .303 .336"
    accuracy = results.arm("cdcda@1").metrics["accuracy"].value
    assert ours[-1].rstrip("*") == f"{accuracy:.3f}".removeprefix("0")
    assert ours[9] == "-"  # rkd_ft did not run
    assert ".017 is far below chance" in layout.notes[-1]
    assert "LaMP-3" not in layout.notes[-1].replace("LaMP-1, 3, 5", "")


def test_a_resolved_difference_to_direct_ft_is_starred(results_of):
    results = results_of(
        task="lamp_4",
        methods=("device", "direct_ft", "cdcda"),
        ratios=(1.0,),
        contrasts=("device - direct_ft",),
    )
    ours = cells(make_layout("table1", [results]).tables["table1"])[0]
    difference = results.arm("device").differences["direct_ft"]["rouge1"]
    assert difference.high < 0
    assert ours[3].endswith("*")
    assert not ours[6].endswith("*")


def test_table2_starts_at_direct_ft_and_tells_mean_and_trend(results_of):
    ratios = (0.1, 0.5, 1.0)
    results = results_of(task="lamp_7", methods=("direct_ft", "cdcda"), ratios=ratios)
    (curve,) = ratio_curves(results)
    assert curve.ratios == (0.0, *ratios)
    assert [arm.arm.name for arm in curve.arms] == ["direct_ft", *(f"cdcda@{r:g}" for r in ratios)]
    rho = curve.rho["rouge1"]
    assert rho.value == 1.0  # every share adds
    assert -1 <= rho.low <= rho.high <= 1
    layout = make_layout("table2", [results])
    table = layout.tables["table2"]
    assert table.head[2:] == ("0%", "10%", "30%", "50%", "70%", "90%", "100%", "Avg", "rho")
    ours, paper = cells(table)[:2]
    assert (ours[4], ours[6], ours[7]) == ("-", "-", "-")  # ratios that did not run
    assert paper[-2] == ".360"
    values = [arm.metrics["rouge1"].value for arm in curve.arms]
    assert ours[-2] == f"{sum(values) / 4:.3f}".removeprefix("0")
    (panel,) = layout.panels
    assert [point.x for point in panel.series[0].points] == list(curve.ratios)


def test_table3_has_one_row_per_variant(results_of):
    methods = ("direct_ft", "cdcda_random", "cdcda_unfiltered", "cdcda")
    results = [results_of(task=task, methods=methods, ratios=(1.0,)) for task in ("lamp_4",)]
    table = make_layout("table3", results).tables["table3"]
    rows = cells(table)
    assert [row[0] for row in rows[::2]] == [
        "CDCDA-PLM 50%",
        "CDCDA-PLM 100%",
        "RS 50%",
        "RS 100%",
        "-DS 50%",
        "-DS 100%",
        "Direct-FT",
    ]
    assert rows[3][2:4] == [".120", ".107"]


def test_figure2_has_an_arm_for_each_k(results_of):
    results = results_of(task="lamp_2", methods=("direct_ft", "cdcda"), ratios=(1.0,), ks=(1, 3))
    layout = make_layout("figure2", [results])
    rows = cells(layout.tables["figure2"])
    assert [row[:2] for row in rows] == [["cdcda", "1"], ["cdcda", "3"], ["direct_ft", "-"]]
    (panel,) = layout.panels
    level, curve = panel.series
    assert (level.method, level.level is not None) == ("direct_ft", True)
    assert [point.x for point in curve.points] == [1.0, 3.0]


def test_thresholds_have_a_panel_each(results_of):
    thresholds = tuple(
        ThresholdsConfig(**{name: value}) for name in ("eps_scf", "eps_tdf") for value in (0.5, 0.9)
    )
    results = results_of(task="lamp_4", methods=("direct_ft", "cdcda"), thresholds=thresholds)
    layout = make_layout("thresholds", [results])
    assert [panel.xlabel for panel in layout.panels] == ["eps_scf", "eps_tdf"]
    assert [row[2] for row in cells(layout.tables["thresholds"])] == [
        "-",
        "eps_scf 0.5",
        "eps_scf 0.9",
        "eps_tdf 0.5",
        "eps_tdf 0.9",
    ]


def test_ranks_are_settings_of_their_own_in_one_document(make_run, tmp_path, capsys):
    folders = []
    for rank in (4, 2):
        folder = make_run(f"rank{rank}", users=4, layout="rank")
        config = json.loads((folder / "config.json").read_text())
        config["qlora"]["rank"] = rank
        (folder / "config.json").write_text(json.dumps(config))
        folders.append(folder)
    out = tmp_path / "doc" / "ranks.md"
    assert report_command.main([f"runs=[{','.join(map(str, folders))}]", f"out={out}"]) == 0
    text = out.read_text()
    assert "## LoRA rank" in text
    assert "## LaMP-4 news headline, miniature world, qlora.rank 2" in text
    assert (out.parent / "ranks_curves.svg").read_text().startswith("<svg")
    with (out.parent / "ranks_tables" / "rank.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["r"] for row in rows] == ["2"] * 4 + ["4"] * 4
    assert "\\toprule" in (out.parent / "ranks_tables" / "rank.tex").read_text()
    assert "LoRA rank" in capsys.readouterr().out


def test_lengths_of_history_are_settings_of_their_own(make_run):
    runs = [
        read_run(make_run(f"few{n}", users=4, layout="few_shot", target_records=n)) for n in (8, 2)
    ]
    found = make_layout("few_shot", [summarise([run]) for run in runs])
    (table,) = found.tables.values()
    assert [row[1].text for row in table.rows] == ["2"] * 4 + ["8"] * 4
    (panel,) = found.panels
    assert {tuple(point.x for point in series.points) for series in panel.series} == {(2.0, 8.0)}


@pytest.mark.parametrize("width", [80, 100, 120])
def test_tables_are_cut_to_the_terminal(results_of, width):
    results = results_of(task="lamp_2", methods=METHODS, ratios=(0.5, 1.0))
    console = Console(file=io.StringIO(), width=width)
    for part in fitting(make_layout("table1", [results]).tables["table1"], console):
        console.print(part)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    assert text.count("LaMP-2 Acc") >= 1
    for value in (".248", ".336", ".265"):
        assert value in text


def test_a_sweep_is_found_by_its_folder_and_reported_again(make_run, tmp_path, capsys):
    for task in ("lamp_2", "lamp_4"):
        make_run(f"night/{task}", task=task, users=4, layout="table1")
    folder = tmp_path / "runs" / "night"
    (folder / "sweep.json").write_text(json.dumps({"runs": ["lamp_2", "lamp_4", "never"]}))
    assert report_command.main([f"run={folder}"]) == 0
    printed = capsys.readouterr().out
    assert "Table 1: methods by task" in printed
    assert "LaMP-2 Acc" in printed
    assert "LaMP-4 R-1" in printed
    first = (folder / "report.md").read_bytes()
    assert report_command.main([f"run={folder}"]) == 0
    assert (folder / "report.md").read_bytes() == first


def test_arms_of_other_settings_are_not_compared(results_of):
    from sim.report.score_tables import compared_pairs

    methods = ("direct_ft", "copies_ft", "cdcda")
    results = results_of(methods=methods, ratios=(1.0,), ks=(1, 3))
    names = {(one.arm.name, other.arm.name) for one, other in compared_pairs(results)}
    assert ("cdcda@1+k3", "copies_ft@1+k3") in names
    assert ("cdcda@1+k3", "copies_ft@1+k1") not in names
    assert ("cdcda@1+k1", "direct_ft") in names
    assert replace(results.arms[0].arm, k=3) != results.arms[0].arm
