"""The report: everything in it, nothing undefined in it, and the table fits the terminal."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace

import pytest
from rich.console import Console

from conf.errors import ConfigError, RunError
from sim.commands import report as report_command
from sim.report import caveats, filter_tables, report, run_tables, score_tables
from sim.report.exercised import why_not
from sim.report.filter_tables import kept_table, rejections_table
from sim.report.frames import users_frame
from sim.report.pooling import summarise
from sim.report.run_records import read_run
from sim.report.score_tables import inferiority_table, not_worse
from sim.statistics import Difference
from storage import jsonlines

pytestmark = pytest.mark.usefixtures("undrawn")


def printed(folder, width: int) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=False)
    report.show(summarise([read_run(folder)]), console)
    return out.getvalue()


def written(folder) -> str:
    """The report's text, without drawing."""
    results = summarise([read_run(folder)])
    return report.render_report(results, report.report_tables(results), ())


@pytest.mark.parametrize("task", ["lamp_1", "lamp_3", "lamp_5", "lamp_7"])
def test_report_of_every_kind_of_task_renders(make_run, task):
    text = written(make_run(task=task, users=8))
    assert text.startswith("# LaMP-")
    assert "miniature world" in text.splitlines()[0]
    assert "95% interval over users" in text
    assert "The NLI model is right on 97.0% of held-out pairs." in text
    assert not re.search(r"\b(nan|None|inf|Undefined)\b", text)
    for part in ("Scores", "Paired differences", "Augmentation", "Over the wire", "Data", "Time"):
        assert f"## {part}" in text


def test_real_data_are_not_called_a_miniature_world(make_run):
    text = written(make_run(users=3, data="/data/of/mine/lamp"))
    assert text.startswith("# LaMP-4 news headline, lamp\n")
    assert "/data/of/mine" not in text


def test_report_links_only_pictures_that_exist(make_run):
    folder = make_run(users=3, methods=("device",))
    report.write_report([folder])
    links = re.findall(r"\]\((plots/[^)]+)\)", (folder / "report.md").read_text())
    assert links == ["plots/scores.png"]
    assert all((folder / link).is_file() for link in links)


@pytest.mark.parametrize(("texts", "exercised"), [(0, False), (3, True)])
@pytest.mark.parametrize(
    ("method", "what"),
    [
        ("self_ft", "own texts"),
        ("neighbours_ft", "public records"),
        ("cdcda_shuffled", "texts of other users"),
    ],
)
def test_devices_that_add_nothing_are_not_exercised(make_run, texts, exercised, method, what):
    folder = make_run(users=4, methods=("device", "direct_ft", method), kept_rate=0.1)
    rows = [row | {"synthetic": texts} for row in jsonlines.read(folder / "adaptations.jsonl")]
    (folder / "adaptations.jsonl").unlink()
    jsonlines.append(folder / "adaptations.jsonl", rows)
    results = summarise([read_run(folder)])
    (arm,) = (each for each in results.arms if each.arm.method == method)
    assert arm.exercised == exercised
    said = f"{method}: method not exercised: 0 {what} per user, fewer than 1"
    assert any(said in text for text in caveats.warnings(results)) != exercised


def test_an_arm_that_kept_next_to_nothing_is_headed_as_not_exercised(make_run):
    folder = make_run(users=12, kept_rate=0.002)
    text = written(folder)
    assert "cdcda: method not exercised: 0 kept pairs per user, fewer than 1 (0 of" in text
    assert "| cdcda (method not exercised) |" in text
    assert "cdcda against direct_ft, 12 users: method not exercised;" in text
    assert "Such\na row is no result, null or otherwise" in text
    assert "cdcda: 0.0% of the candidates passed SCF." in text
    assert "method not exercised" in printed(folder, 80)
    results = summarise([read_run(folder)])
    assert [arm.arm.name for arm in results.arms if not arm.exercised] == ["cdcda"]


@pytest.mark.parametrize(
    ("method", "generated", "kept", "reason"),
    [
        ("cdcda", 1000, 29, "2.9% of the candidates were kept, outside the 3% to 33%"),
        ("cdcda", 1000, 331, "33.1% of the candidates were kept, outside the 3% to 33%"),
        ("cdcda", 10, 0, "0 kept pairs per user, fewer than 1"),
        ("cdcda", 1000, 30, None),
        ("cdcda", 0, 0, None),
        ("cdcda_random", 1000, 500, "outside the 3% to 33%"),
        ("cdcda_unfiltered", 1000, 900, None),
        ("cdcda_unfiltered", 1000, 0, "0 kept pairs per user"),
    ],
)
def test_the_kept_share_must_be_one_that_the_paper_saw(make_run, method, generated, kept, reason):
    run = read_run(make_run(users=2, queries=1, methods=("direct_ft", method)))
    line = next(iter(run.augmentations.values()))
    lines = {(method, "u"): replace(line, generated=generated, kept=kept)}
    found = why_not(replace(run, augmentations=lines), run.arms[1])
    assert found is None if reason is None else reason in found


def test_the_best_share_is_a_gate_of_its_own_and_thresholds_are_not_asked(make_run):
    run = read_run(make_run(users=2, queries=1, methods=("cdcda",)))
    line = next(iter(run.augmentations.values()))
    ranked = replace(line, generated=100, kept=20, rejected={"no_input": 10, "quantile": 70})
    config = replace(run.config, filters=replace(run.config.filters, keep_share=0.22))
    made = replace(run, config=config, augmentations={("cdcda", line.user): ranked})
    table = kept_table(made)
    cells = dict(zip(table.head, (cell.text for cell in table.rows[0]), strict=True))
    assert (cells["Readable"], cells["Pass SCF"], cells["Pass best share"]) == (
        "90.0%",
        "-",
        "22.2%",
    )
    rejected = {row[0].text: row[1].text for row in rejections_table(made).rows}
    assert rejected == {"no input": "10", "best share": "70"}


def test_a_label_other_than_the_shared_one_is_a_gate_of_its_own(make_run):
    run = read_run(make_run(task="lamp_2", users=2, queries=1, methods=("cdcda",)))
    line = next(iter(run.augmentations.values()))
    rejected = {"cut_off": 20, "label_not_aligned": 60, "scf": 10}
    made = replace(
        run,
        augmentations={
            ("cdcda", line.user): replace(line, generated=100, kept=10, rejected=rejected)
        },
    )
    table = kept_table(made)
    cells = dict(zip(table.head, (cell.text for cell in table.rows[0]), strict=True))
    named = [cells[name] for name in ("Readable", "Same label", "Pass SCF")]
    assert named == ["80.0%", "25.0%", "50.0%"]
    titles = [row[0].text for row in rejections_table(made).rows]
    assert titles == ["cut off", "label not the shared one", "SCF"]


def test_what_was_cut_is_counted_per_arm_and_user(make_run):
    folder = make_run(users=3, methods=("device", "direct_ft"))
    assert "Too long" not in written(folder)
    for name, changed in (("answers", {"shortened": 2}), ("adaptations", {"shortened": 5})):
        lines = [
            {**line, **(changed if line["user"] != "user-000" else {})}
            for line in jsonlines.read(folder / f"{name}.jsonl")
        ]
        (folder / f"{name}.jsonl").unlink()
        jsonlines.append(folder / f"{name}.jsonl", lines)
    jsonlines.append(
        folder / "rounds.jsonl",
        [{"arm": "", "phase": "augmentation counters", "seconds": 0.0, "cut_pairs": 7}],
    )
    run = read_run(folder)
    rows = [[cell.text for cell in row] for row in run_tables.shortened_table(run).rows]
    assert rows == [["device", "0", "4", "2"], ["direct_ft", "10", "4", "2"]]
    assert "Too long for the model" in written(folder)
    assert run_tables.cut_pairs(run) == 7
    cells = users_frame(run).set_index(["arm", "user"]).loc[run.arms[1].name]
    assert list(cells.loc["user-001", ["shortened_examples", "shortened_queries"]]) == [5, 2]
    assert cells.loc["user-000", "shortened_queries"] == 0


def test_trainings_that_ran_out_of_memory_are_counted_per_arm(make_run):
    folder = make_run(users=3, methods=("device", "direct_ft"))
    assert "Memory ran out" not in written(folder)
    lines = list(jsonlines.read(folder / "adaptations.jsonl"))
    (folder / "adaptations.jsonl").unlink()
    times = {"user-000": 0, "user-001": 2, "user-002": 3}
    jsonlines.append(
        folder / "adaptations.jsonl",
        [{**line, "reductions": times[line["user"]]} for line in lines],
    )
    run = read_run(folder)
    rows = [[cell.text for cell in row] for row in run_tables.reductions_table(run).rows]
    assert rows == [["direct_ft", "2", "5", "3"]]
    assert "Memory ran out; the training went on in smaller" in written(folder)
    cells = users_frame(run).set_index(["arm", "user"])
    assert cells.loc[("direct_ft", "user-002"), "reductions"] == 3


def test_an_arm_in_which_nothing_is_shared_is_a_control(make_run):
    results = summarise([read_run(make_run(users=12, ratios=(0.0, 1.0)))])
    assert all(arm.exercised for arm in results.arms)


def test_healthy_filters_are_not_warned_of(make_run):
    results = summarise([read_run(make_run(users=12))])
    assert caveats.warnings(results) == []


def test_weak_nli_model_is_warned_of(make_run):
    results = summarise([read_run(make_run(users=12, nli=0.4))])
    assert caveats.warnings(results) == ["The NLI model is right on 40.0% of held-out pairs only."]


def test_failures_are_listed_by_user(make_run):
    text = written(make_run(users=11, missing={"cdcda": ("user-002",)}))
    assert "| user-002 | cdcda | train.adapt | Lost | no reply in 900 s | no |" in text
    assert "cdcda: 10 of 11 users are scored; 1 with a failed message." in text


def test_few_users_are_warned_of(make_run):
    results = summarise([read_run(make_run(users=1))])
    (warning,) = caveats.warnings(results)
    assert warning.endswith("cdcda: 1 user; so there is no interval.")


def test_identical_scores_are_not_sold_as_certainty(make_run):
    folder = make_run(users=12, methods=("device",))
    lines = [{**line, "rouge1": 0.5} for line in jsonlines.read(folder / "answers.jsonl")]
    (folder / "answers.jsonl").unlink()
    jsonlines.append(folder / "answers.jsonl", lines)
    (warning,) = caveats.warnings(summarise([read_run(folder)]))
    assert "not because nothing is uncertain" in warning


def test_no_query_at_all_still_gives_a_report(make_run):
    folder = make_run(users=3, queries=0)
    assert "device: no user has a scored query." in written(folder)
    assert "n/a" in printed(folder, 80)


def test_power_note_says_what_the_users_can_tell(make_run):
    results = summarise([read_run(make_run(users=12))])
    note = score_tables.power_notes(results)[-1]
    assert re.match(r"cdcda against direct_ft, 12 users: ROUGE-1 \+0\.\d+, better; ", note)
    assert "is found with 80% power" in note


def test_arms_of_different_ratios_are_not_held_against_each_other(make_run):
    run = read_run(make_run(users=3, methods=("direct_ft_matched", "cdcda"), ratios=(0.5, 1.0)))
    pairs = score_tables.compared_pairs(summarise([run]))
    assert [(a.arm.name, b.arm.name) for a, b in pairs] == [
        ("cdcda@0.5", "direct_ft_matched@0.5"),
        ("cdcda@1", "direct_ft_matched@1"),
    ]


def test_pass_shares_multiply_to_the_kept_share(make_run):
    run = read_run(make_run(users=12))
    (row,) = filter_tables.kept_table(run).rows
    cells = dict(zip(filter_tables.kept_table(run).head, (cell.text for cell in row), strict=True))
    gates = [cells[name] for name in cells if name.startswith(("Readable", "Pass"))]
    product = 1.0
    for gate in gates:
        product *= float(gate.rstrip("%")) / 100
    assert len(gates) == 4
    assert product == pytest.approx(float(cells["Kept share"].rstrip("%")) / 100, abs=2e-3)


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("task", ["lamp_2", "lamp_4"])
def test_table_fits_the_terminal(make_run, width, task):
    shown = printed(make_run(task=task, users=3), width)
    table = shown.split("[low, high]")[0].splitlines()
    assert max(map(len, table)) <= width
    assert sum(line.startswith("direct_ft_matched ") for line in table) == 1  # nothing folded


def test_wide_terminal_shows_all_metrics(make_run):
    folder = make_run(users=3)
    assert "BERTScore" in printed(folder, 120)
    assert "BERTScore" not in printed(folder, 80)


def test_report_is_made_again_without_training(make_run, monkeypatch, capsys):
    folder = make_run("mine", users=4)
    monkeypatch.chdir(folder.parents[1])
    assert report_command.main(["run=mine"]) == 0
    text = (folder / "report.md").read_text()
    results = summarise([read_run(folder)])
    assert text == report.render_report(
        results, report.report_tables(results), ("scores", "gains", "losses")
    )
    assert "LaMP-4" in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["run=a", "runs=[a]"], ["rum=a"], ["run="]])
def test_wrong_words_are_refused(words):
    with pytest.raises(ConfigError, match="report: "):
        report_command.main(words)


def test_unknown_run_is_refused():
    with pytest.raises(RunError, match="no such run"):
        report_command.main(["run=nowhere"])


def test_every_table_lies_beside_the_report_in_three_formats(make_run):
    folder = make_run(users=4)
    report.write_report([folder])
    names = {path.stem for path in (folder / "tables").iterdir()}
    assert {"scores", "differences", "kept", "training", "efficiency", "parsing"} <= names
    for name in names:
        found = {path.suffix for path in (folder / "tables").glob(f"{name}.*")}
        assert found == {".md", ".tex", ".csv"}
    pictures = {path.suffix for path in (folder / "plots").glob("scores.*")}
    assert pictures == {".png", ".svg"}


def test_methods_without_filters_show_no_gate(make_run):
    methods = ("direct_ft", "cdcda_random", "cdcda")
    folder = make_run(users=4, methods=methods)
    path = folder / "augmentation.jsonl"
    lines = list(jsonlines.read(path))
    for line in lines:
        if line["arm"] == "cdcda_random":
            line["rejected"] = {"not_drawn": sum(line["rejected"].values())}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = read_run(folder)
    random, filtered = kept_table(run).rows
    assert [cell.text for cell in random[5:8]] == ["-"] * 3
    assert all(cell.text.endswith("%") for cell in filtered[5:8])
    assert "Pass not_drawn" not in kept_table(run).head
    (row,) = [row for row in rejections_table(run).rows if row[0].text == "not drawn"]
    assert row[1].text != "0"


@pytest.mark.parametrize(
    ("low", "high", "higher", "expected"),
    [
        (-0.04, 0.1, True, True),
        (-0.06, 0.1, True, None),
        (-0.2, -0.06, True, False),
        (-0.1, 0.04, False, True),  # an error that grows by less than the margin
        (0.06, 0.2, False, False),
        (None, None, True, None),
    ],
)
def test_non_inferiority_needs_the_whole_interval(low, high, higher, expected):
    found = Difference(0.0, low, high, (0.0,), 1.0, 0.1, 9, 20, 200)
    assert not_worse(found, higher, 0.05) is expected


def test_the_cloud_is_what_devices_are_held_against(make_run):
    folder = make_run(users=6, methods=("cloud", "device", "direct_ft", "cdcda"))
    results = summarise([read_run(folder)])
    table = inferiority_table(results)
    assert [row[0].text for row in table.rows] == ["direct_ft", "cdcda"]
    assert table.head[-1] == "Not worse by more than 0.05"
    assert {row[2].text for row in table.rows} <= {"shown", "no, worse", "not resolved"}


def test_candidates_without_a_reply_are_not_readable(make_run):
    folder = make_run(users=2, methods=("device", "cdcda"))
    line = next(jsonlines.read(folder / "augmentation.jsonl"))
    lost = {**line, "shared": 2, "generated": 10, "kept": 0, "rejected": {"no_reply": 10}}
    (folder / "augmentation.jsonl").unlink()
    jsonlines.append(folder / "augmentation.jsonl", [lost])
    run = read_run(folder)
    table = kept_table(run)
    cells = dict(zip(table.head, (cell.text for cell in table.rows[0]), strict=True))
    assert cells["Readable"] == "0.0%"
    assert "Pass no_reply" not in cells
    assert [row[0].text for row in rejections_table(run).rows] == ["no reply"]


def test_tombstones_and_what_oracles_read_are_no_messages(make_run):
    folder = make_run(users=2, methods=("device", "cdcda"))
    before = run_tables.wire_table(read_run(folder))
    head = {"user": "user-000", "records": 9, "hash": "", "fields": [], "redelivery": False}
    lines = [
        {**head, "arm": "", "direction": "device -> server", "kind": "withdrawal", "bytes": 0},
        {**head, "arm": "cloud", "direction": "all data in the cloud", "kind": "history",
         "bytes": 700},
    ]  # fmt: skip
    jsonlines.append(folder / "ledger.jsonl", lines)
    assert run_tables.wire_table(read_run(folder)) == before


def test_a_ratio_of_zero_is_not_the_largest_share(make_run):
    folder = make_run(users=2, methods=("cdcda",), ratios=(0.0, 0.5))
    statistics = {"queries": 4, "records_per_user": 3.0, "input_words": 5.0, "response_words": 1.0}
    (folder / "manifest.json").write_text(json.dumps({"data": {"statistics": statistics}}))
    run = read_run(folder)
    kept = sum(line.kept for (arm, _), line in run.augmentations.items() if arm == "cdcda@0.5")
    table = run_tables.statistics_table([run])
    assert kept > 0
    assert table.rows[0][table.head.index("Kept")].text == f"{kept:,}"
