"""Case studies show gains and losses alike, and only where texts were shipped."""

from __future__ import annotations

import json

import pytest

from sim.report import report
from sim.report.cases import case_page
from sim.report.run_records import read_run
from storage import jsonlines

pytestmark = pytest.mark.usefixtures("undrawn")

METHODS = ("direct_ft", "cdcda")


@pytest.fixture
def shipped(make_run):
    """A run of which every answer has its text."""
    folder = make_run("cases", task="lamp_4", users=3, queries=4, methods=METHODS)
    path = folder / "answers.jsonl"
    lines = list(jsonlines.read(path))
    for line in lines:
        line |= {"text": f"{line['arm']} | says", "gold_text": f"gold {line['query']}"}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = json.loads((folder / "config.json").read_text())
    config["evaluation"]["ship_predictions"] = True
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_the_page_shows_the_largest_gain_first_and_the_losses_too(shipped):
    run = read_run(shipped)
    page = case_page(run, "Title")
    answers = {arm: {a.query: a.rouge1 for a in rows} for arm, rows in run.answers.items()}
    gains = {q: value - answers["direct_ft"][q] for q, value in answers["cdcda"].items()}
    best = max(gains, key=gains.get)
    assert page.index(f"query {best}:") < min(
        page.index(f"query {query}:") for query in gains if query != best and f"{query}:" in page
    )
    assert "## Where it hurts most" in page
    assert f"Gold answer: gold {best}" in page
    assert "| cdcda | cdcda \\| says |" in page
    better = sum(gain > 0 for gain in gains.values())
    assert f"Of 12 queries {better} are answered better" in page


def test_the_report_links_the_page_and_a_run_without_texts_has_none(shipped, make_run):
    report.write_report([shipped])
    assert (shipped / "cases.md").is_file()
    assert "[cases.md](cases.md)" in (shipped / "report.md").read_text()
    plain = make_run("plain", users=2)
    report.write_report([plain])
    assert not (plain / "cases.md").exists()
    assert "cases.md" not in (plain / "report.md").read_text()
