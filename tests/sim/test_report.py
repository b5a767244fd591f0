"""The report: everything in it, nothing undefined in it, and the table fits the terminal."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from conf.errors import ConfigError, RunError
from sim import cautions, filter_tables, report, score_tables
from sim.results import summarise
from sim.run_records import read_run
from storage import jsonlines


def printed(folder, width: int) -> str:
    out = io.StringIO()
    report.print_report([folder], Console(file=out, width=width, force_terminal=False))
    return out.getvalue()


def written(folder) -> str:
    """The report's text, without drawing."""
    return report.render_report(summarise([read_run(folder)]), ())


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
    assert links == ["plots/scores.png", "plots/share_ratio.png"]
    assert all((folder / link).is_file() for link in links)


def test_nearly_no_kept_candidate_is_warned_of(make_run):
    text = written(make_run(users=6, kept_rate=0.002))
    assert "cdcda: the filters kept 0 of" in text
    assert "cdcda: 0.0% of the candidates passed SCF." in text


def test_healthy_filters_are_not_warned_of(make_run):
    results = summarise([read_run(make_run(users=12))])
    assert cautions.warnings(results) == []


def test_weak_nli_model_is_warned_of(make_run):
    results = summarise([read_run(make_run(users=12, nli=0.4))])
    assert cautions.warnings(results) == ["The NLI model is right on 40.0% of held-out pairs only."]


def test_failures_are_listed_by_user(make_run):
    text = written(make_run(users=11, missing={"cdcda": ("user-002",)}))
    assert "| user-002 | cdcda | train.adapt | Lost | no reply in 900 s | no |" in text
    assert "cdcda: 10 of 11 users are scored; 1 with a failed message." in text


def test_few_users_are_warned_of(make_run):
    results = summarise([read_run(make_run(users=1))])
    (warning,) = cautions.warnings(results)
    assert warning.endswith("cdcda: 1 user; so there is no interval.")


def test_identical_scores_are_not_sold_as_certainty(make_run):
    folder = make_run(users=12, methods=("device",))
    lines = [{**line, "rouge1": 0.5} for line in jsonlines.read(folder / "answers.jsonl")]
    (folder / "answers.jsonl").unlink()
    jsonlines.append(folder / "answers.jsonl", lines)
    (warning,) = cautions.warnings(summarise([read_run(folder)]))
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
    assert report.main(["run=mine"]) == 0
    text = (folder / "report.md").read_text()
    assert text == report.render_report(
        summarise([read_run(folder)]), ("scores", "share_ratio", "loss_curves")
    )
    assert "LaMP-4" in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["run=a", "runs=[a]"], ["rum=a"], ["run="]])
def test_wrong_words_are_refused(words):
    with pytest.raises(ConfigError, match="report: "):
        report.main(words)


def test_unknown_run_is_refused():
    with pytest.raises(RunError, match="no such run"):
        report.main(["run=nowhere"])
