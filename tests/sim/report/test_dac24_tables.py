"""The report of streaming devices from a run folder: curves, table 4, gains, costs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.console import Console

from conf.compose import compose
from sim.report import caveats, report
from sim.report import dac24_values as paper
from sim.report.dac24_tables import curve_of, selection_share
from sim.report.layouts import make_layout
from sim.report.pooling import summarise
from sim.report.run_records import read_run
from storage import jsonlines

pytestmark = pytest.mark.usefixtures("undrawn")

METHODS = ("device", "dac24", "dac24_random", "dac24_eoe")


@pytest.fixture
def streaming(make_run):
    """A run whose streaming arms report curves that are known."""

    def make(name: str = "stream", sets: int = 3, **settings):
        stream = replace(compose([]).stream, sets=sets)
        folder = make_run(name, methods=METHODS, users=4, stream=stream, layout="dac24", **settings)
        path = folder / "adaptations.jsonl"
        rows = list(jsonlines.read(path))
        path.unlink()
        for row in rows:
            user = int(row["user"].rpartition("-")[2])
            row |= {
                "records": 16,
                "curve_seen": [0, 75, 150],
                "curve": [0.1, 0.2 + 0.1 * user, 0.5],
                "epoch_seconds": [0.5, 1.5],
                "phase_seconds": [0.2, 0.8, 3.0],  # selection, synthesis, curve
                "seconds": 3.0,
                "annotations": 20 + user,
                "synthesis": [30, 5, 10, 5],
                "buffer_bytes": 2048,
                "variation": [0.004, 0.2],
            }
        jsonlines.append(path, rows)
        return summarise([read_run(folder)])

    return make


def rows_of(table) -> list[list[str]]:
    return [[cell.text for cell in row] for row in table.rows]


def test_the_curve_is_the_mean_over_users(streaming):
    points = curve_of(streaming(), "dac24")
    assert [point.x for point in points] == [0, 75, 150]
    values = [point.estimate.value for point in points]
    assert values == pytest.approx([0.1, (0.2 + 0.3 + 0.4 + 0.5) / 4, 0.5])


def test_the_share_of_selection_leaves_the_curves_answers_out(streaming):
    results = streaming()
    line = results.runs[0].adaptations["dac24", "user-000"]
    assert selection_share(line) == pytest.approx(0.2 / (0.2 + 0.8 + 3.0))


def test_figure_2_has_a_row_per_method_and_the_papers_ends_beside(streaming):
    tables = make_layout("dac24", [streaming()]).tables
    assert tables["figure2"].head[2:] == ("Users", "0 seen", "75 seen", "150 seen")
    curves = {row[1]: row[2:] for row in rows_of(tables["figure2"])}
    assert curves["dac24"] == ["4", ".100", ".350", ".500"]
    assert set(curves) == {"dac24", "dac24_random", "dac24_eoe"}  # device has no curve
    ends = {row[0]: row for row in rows_of(tables["figure2_ends"])}
    assert ends["dac24"][2:] == [".373", ".347", ".306", ".326", ".281", ".343"]
    assert ends["dac24_fifo"][1] == "-"


def test_table_4_stands_beside_the_papers(streaming):
    rows = {row[0]: row for row in rows_of(make_layout("dac24", [streaming()]).tables["table4"])}
    assert list(rows) == ["dac24_eoe", "dac24_dss", "dac24_idd", "dac24"]
    assert rows["dac24_dss"][1] == "-"
    assert rows["dac24_eoe"][1] != "-"
    assert rows["dac24_eoe"][2] == ".282"


def test_gains_are_paired_and_beside_the_claim(streaming):
    results = streaming()
    rows = {row[1]: row for row in rows_of(make_layout("dac24", [results]).tables["gains"])}
    ours, theirs = (results.arm(name).metrics["rouge1"].value for name in ("dac24", "dac24_random"))
    assert rows["dac24_random"][3] == f"{100 * (ours / theirs - 1):+.1f}%"
    assert rows["dac24_random"][4].endswith("claimed: up to 38%")
    assert rows["device"][4] == "-"
    assert set(rows) == {"device", "dac24_random", "dac24_eoe"}


def test_costs_count_questions_texts_and_time(streaming):
    rows = {row[1]: row for row in rows_of(make_layout("dac24", [streaming()]).tables["costs"])}
    asked, *texts = rows["dac24"][2:7]
    assert asked == "22"  # mean of 20 to 23 is 21.5
    assert texts == ["60.0%", "10.0%", "20.0%", "10.0%"]
    assert rows["dac24"][7] == "2.0 KiB"
    assert rows["dac24"][8:10] == ["0.004", "0.200"]
    assert rows["dac24"][11] == "5.0%"


def test_a_score_that_hardly_varies_is_warned_of_where_it_decides(streaming):
    found = [text for text in caveats.warnings(streaming()) if "hardly varies" in text]
    assert [text.partition(":")[0] for text in found] == ["dac24", "dac24_eoe"]
    assert all("entropy of embedding" in text for text in found)


def test_a_sweep_over_texts_is_figure_3(streaming):
    several = [streaming(f"sets-{sets}", sets) for sets in (6, 1)]
    rows = rows_of(make_layout("dac24", several).tables["figure3"])
    assert [row[0] for row in rows] == ["1", "6"]
    assert [row[2] for row in rows] == ["1.50 s", "1.50 s"]
    assert [row[3] for row in rows] == [".242", ".344"]


def test_the_published_numbers_are_complete():
    for table in (paper.FIGURE2, paper.TABLE4):
        assert {len(row) for row in table.values()} == {len(paper.DATASETS)}
    ends = zip(paper.FIGURE2["dac24"], paper.TABLE4["dac24"], strict=True)
    assert all(abs(plotted - printed) < 0.005 for plotted, printed in ends)
    assert sorted(paper.FIGURE3) == list(range(1, 10))


def test_a_run_of_streaming_devices_is_reported_with_its_curves(streaming):
    results = streaming()
    folder = results.runs[0].folder
    report.write_report([folder])
    text = (folder / "report.md").read_text(encoding="utf-8")
    assert "Not to be had" in text
    assert "claimed: up to 38%" in text
    assert (folder / "plots" / "curves.png").is_file()
    console = Console(width=200, record=True)
    report.show(results, console)
    assert "dac24_random" in console.export_text()


def test_a_dry_run_counts_the_steps_of_every_chunk():
    from sim.run.estimate import _stream_steps

    words = ["stream.bins=16", "stream.every=75", "stream.sets=3", "qlora.batch_size=8"]
    config = compose([*words, "qlora.epochs=4"])
    # 300 records: 4 fine-tunings on 16 + 48 records, 8 batches, 4 epochs
    assert _stream_steps(config, synthesis=True, records=300) == 4 * 8 * 4
    assert _stream_steps(config, synthesis=False, records=300) == 4 * 2 * 4
    # 80 records: 75 and 5 more, the buffer is full both times
    assert _stream_steps(config, synthesis=True, records=80) == 2 * 8 * 4
    assert _stream_steps(config, synthesis=True, records=10) == 5 * 4  # 10 + 30 records


def test_a_device_that_wrote_nothing_of_use_is_a_caution(streaming):
    from sim.report import caveats

    results = streaming()
    run = results.runs[0]
    assert not [text for text in caveats.warnings(results) if "own model wrote" in text]
    lines = {
        key: replace(line, synthesis=(0, 40, 0, 10) if key[0] == "dac24" else line.synthesis)
        for key, line in run.adaptations.items()
    }
    found = caveats.warnings(replace(results, runs=(replace(run, adaptations=lines),)))
    (text,) = [text for text in found if "own model wrote" in text]
    assert text.startswith("dac24: of 200 texts that the devices' own model wrote 0 were kept")
