"""The page: one file, nothing from outside is markup, and what a browser makes of it."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from sim.commands import report as report_command
from sim.report.charts import figures
from sim.report.page import page
from sim.report.pooling import summarise
from sim.report.report import PAGE, write_report
from sim.report.run_records import read_run
from sim.report.verdict import verdict
from sim.results import load_run
from storage import jsonlines

HOSTILE = "</script><img src=x onerror=alert(1)>"


@pytest.fixture(autouse=True)
def undrawn_but_for_the_browser(request):
    if "browser" not in request.keywords:
        request.getfixturevalue("undrawn")


def data_of(text: str) -> dict:
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL).group(1))


def test_the_page_holds_verdict_scores_and_every_user(make_run):
    folder = make_run(users=12)
    write_report([folder])
    text = (folder / PAGE).read_text(encoding="utf-8")
    assert "cdcda against direct_ft: " in text
    assert "after Holm" in text
    data = data_of(text)
    assert [user["user"] for user in data["users"]] == [f"user-{n:03d}" for n in range(12)]
    results = summarise([read_run(folder)])
    gains = [user["gain"] for user in data["users"]]
    stated = results.arm("cdcda").differences["direct_ft"]["user_mean_rouge1"].value
    assert sum(gains) / 12 == pytest.approx(stated, abs=1e-4)
    assert set(data["specs"]) == {"scores", "gains", "filters", "wire", "losses", "phases"}
    assert set(re.findall(r"https?://[^/]+", text)) <= {
        "https://vega.github.io",
        "http://www.w3.org",
    }


def test_nothing_from_outside_is_markup(make_run):
    folder = make_run(users=2)
    for name in ("answers", "adaptations", "augmentation", "ledger"):
        lines = list(jsonlines.read(folder / f"{name}.jsonl"))
        (folder / f"{name}.jsonl").unlink()
        renamed = [
            {**line, "user": HOSTILE if line["user"] == "user-000" else line["user"]}
            for line in lines
        ]
        if name == "answers":
            renamed[0] |= {"text": HOSTILE, "gold_text": "<b>gold</b>"}
        jsonlines.append(folder / f"{name}.jsonl", renamed)
    write_report([folder])
    text = (folder / PAGE).read_text(encoding="utf-8")
    assert HOSTILE not in text
    assert "<img" not in text
    assert HOSTILE in {user["user"] for user in data_of(text)["users"]}


def test_every_chart_says_in_words_what_it_shows(make_run):
    drawn = figures(summarise([read_run(make_run(users=6))]))
    assert all(len(figure.alt.split()) > 5 for figure in drawn)
    assert all(figure.spec["$schema"].startswith("https://vega.github.io") for figure in drawn)


def test_many_users_are_drawn_in_part_and_it_says_so(make_run, monkeypatch):
    monkeypatch.setattr("sim.report.charts.MOST_POINTS", 5)
    drawn = {each.name: each for each in figures(summarise([read_run(make_run(users=9))]))}
    assert drawn["gains"].note.endswith(" 5 of 9 users are drawn.")


def test_a_run_without_contrasts_has_a_page_too(make_run):
    folder = make_run(users=2, methods=("device",))
    write_report([folder])
    text = (folder / PAGE).read_text(encoding="utf-8")
    assert "None of the declared contrasts" in text
    missing = "cdcda against direct_ft (no cdcda, no direct_ft)"
    assert missing in text
    assert missing in (folder / "report.md").read_text(encoding="utf-8")
    assert data_of(text)["contrast"] is None


def test_seeds_of_one_setting_have_one_page_with_the_rate_of_chance(make_run, capsys):
    folders = [make_run(f"seed-{seed}", users=6, seed=seed) for seed in (0, 1)]
    out = folders[0].parent / "both.md"
    assert report_command.main([f"runs=[{','.join(map(str, folders))}]", f"out={out}"]) == 0
    text = out.with_suffix(".html").read_text(encoding="utf-8")
    assert "By chance: between two seeds of direct_ft itself" in text
    assert "both.html" in capsys.readouterr().out


def test_settings_are_compared_on_a_page_with_a_section_each(make_run, capsys):
    folders = [make_run(f"few{n}", users=4, layout="few_shot", target_records=n) for n in (8, 2)]
    out = folders[0].parent / "lengths.md"
    assert report_command.main([f"runs=[{','.join(map(str, folders))}]", f"out={out}"]) == 0
    text = out.with_suffix(".html").read_text(encoding="utf-8")
    assert "lengths.html" in capsys.readouterr().out
    assert re.findall(r'<section id="setting-\d" aria-label="([^"]+)"', text) == [
        f"LaMP-4 news headline, miniature world, target_records {n}" for n in (8, 2)
    ]
    assert "Records per user" in text
    assert set(data_of(text)["specs"]) == {"scores-0", "scores-1", "curves"}
    assert text.count('data-spec="') == 3


def add_scores(folder: Path) -> None:
    """Ten candidates: one cannot be read, three are no copy and no drift, one of these too long."""
    scored = (
        [(0.9, 0.5, 1.0)] * 2 + [(0.9, 0.5, 2.9)] + [(0.9, 0.99, 1.0)] * 4 + [(0.2, 0.1, 1.0)] * 2
    )
    rows = [
        {"user": "user-000", "entails": 1.0, "entailed": a, "rouge_l": b}
        | dict.fromkeys(("length_ratio_characters", "length_ratio_words"), c)
        for a, b, c in scored
    ]
    rows.append({"user": "user-001", "unreadable": "no_input"})
    jsonlines.append(folder / "filter_scores.jsonl", rows)


def test_the_scores_of_candidates_travel_with_the_thresholds(make_run):
    folder = make_run(users=2)
    add_scores(folder)
    write_report([folder])
    found = data_of((folder / PAGE).read_text(encoding="utf-8"))["candidates"]
    assert (found["generated"], len(found["scores"])) == (10, 9)
    assert found["thresholds"] == [0.75, 0.75, 0.8, 1.5]
    frame = load_run(folder).candidates
    assert frame.consistency.max() == 0.9
    assert list(frame.unreadable.dropna()) == ["no_input"]


def test_numbers_that_json_has_no_words_for_are_null(make_run):
    folder = make_run(users=2)
    lines = list(jsonlines.read(folder / "adaptations.jsonl"))
    (folder / "adaptations.jsonl").unlink()
    broken = [{**line, "losses": [1.0, float("nan"), float("inf")]} for line in lines]
    (folder / "adaptations.jsonl").write_text("".join(json.dumps(x) + "\n" for x in broken))
    add_scores(folder)
    with (folder / "filter_scores.jsonl").open("a") as file:
        ratios = {f"length_ratio_{unit}": float("inf") for unit in ("characters", "words")}
        near = {"entails": 1.0, "entailed": 1.0, "rouge_l": 0.0}
        file.write(json.dumps({"user": "user-000", **near, **ratios}) + "\n")
    write_report([folder])
    text = (folder / PAGE).read_text(encoding="utf-8")
    assert not re.search(r"[:,\[](NaN|-?Infinity)\b", text)
    data = data_of(text)
    assert data["users"][0]["losses"]["cdcda"] == [1.0, None, None]
    assert max(row[2] for row in data["candidates"]["scores"]) == page.LONGEST


def test_a_run_that_has_no_answers_yet_is_not_said_to_lack_methods(make_run):
    folder = make_run(users=2)
    (folder / "answers.jsonl").unlink()
    write_report([folder])
    text = (folder / PAGE).read_text(encoding="utf-8")
    assert "Nothing was tested: no declared contrast" in text
    assert "Nothing was tested: no declared contrast" in (folder / "report.md").read_text()


def test_interval_and_test_that_disagree_say_so(make_run):
    found = verdict(summarise([read_run(make_run(users=5))])).effects[0]
    assert "its interval leaves out zero, but the test does not confirm it" in found
    assert "would be found" not in found


@pytest.fixture(scope="module")
def chromium():
    """A browser; in continuous integration one must be there."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail("needs chromium; apt-get install chromium")
        pytest.skip("needs chromium, which is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.browser
@pytest.mark.slow
def test_a_browser_draws_selects_sorts_and_finds_nothing_inaccessible(make_run, chromium):
    folder = make_run(users=30)
    _deal_groups(folder)
    add_scores(folder)
    write_report([folder])
    errors: list[str] = []
    requested: list[str] = []
    for scheme, width in (("light", 1280), ("dark", 420)):
        view = chromium.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
        view.on("pageerror", lambda error: errors.append(str(error)))
        view.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
        view.on("request", lambda asked: requested.append(asked.url))
        view.goto(f"file://{folder / PAGE}")
        view.wait_for_selector("#figure-gains svg.marks")
        assert view.locator(".chart svg.marks").count() >= 6
        drawn = view.locator(".chart svg.marks").evaluate_all("all => all.map(e => e.clientWidth)")
        assert min(drawn) > 200, "every chart is drawn at this width"
        assert max(drawn) <= width
        rows = view.locator("#user-table tbody tr")
        assert rows.count() == 30
        view.uncheck("#groups input[value=closed]")
        assert 0 < rows.count() < 30
        view.check("#groups input[value=closed]")
        _brush(view)
        assert 0 < rows.count() < 30, "the rectangle chooses users"
        assert view.inner_text("#chosen").startswith(f"{rows.count()} of 30 users chosen")
        view.click("#clear")
        view.click("#user-table thead button >> nth=0")
        assert rows.first.inner_text().startswith("user-000")
        view.click("#user-table tbody button >> nth=0")
        assert view.inner_text("#user h3") == "User user-000"
        assert "20.0 % kept; 20.0 % by the run" in view.inner_text("#recount")
        view.locator("#sliders input").nth(3).fill("3")
        view.locator("#sliders input").nth(1).fill("1")
        assert "70.0 % kept; 20.0 % by the run" in view.inner_text("#recount")
        assert _serious(view) == []
        view.evaluate("dispatchEvent(new Event('beforeprint'))")
        view.emulate_media(media="print")
        assert view.locator("#user-table tbody button").first.is_visible(), "names are printed"
        assert view.locator("#tables table").last.is_visible(), "closed tables are printed"
        view.close()
    assert errors == []
    assert all(url.startswith(("file:", "data:", "blob:")) for url in requested)


@pytest.mark.browser
@pytest.mark.slow
def test_a_browser_draws_a_comparison(make_run, chromium):
    folders = [make_run(f"few{n}", users=6, layout="few_shot", target_records=n) for n in (2, 8)]
    out = folders[0].parent / "lengths.md"
    report_command.main([f"runs=[{','.join(map(str, folders))}]", f"out={out}"])
    errors: list[str] = []
    for scheme, width in (("light", 1280), ("dark", 420)):
        view = chromium.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
        view.on("pageerror", lambda error: errors.append(str(error)))
        view.goto(f"file://{out.with_suffix('.html')}")
        view.wait_for_selector("#figure-scores-1 svg.marks")
        assert view.locator(".chart svg.marks").count() == 3
        view.click("#setting-1 summary >> nth=1")
        assert view.locator("#setting-1 details[open] table").count() == 2
        assert _serious(view) == []
        view.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert view.locator("details:not([open])").count() == 0, "closed tables are printed"
        view.close()
    assert errors == []


def _serious(view) -> list:
    """What axe finds serious."""
    from axe_playwright_python.sync_playwright import Axe

    return [
        (each["id"], [node["html"][:200] for node in each["nodes"]])
        for each in Axe().run(view).response["violations"]
        if each["impact"] in ("serious", "critical")
    ]


def _deal_groups(folder: Path) -> None:
    """Half of the users belong to another group."""
    head, *rows = (folder / "policies.csv").read_text().splitlines()
    dealt = [row.replace("open", "closed") if n % 2 else row for n, row in enumerate(rows)]
    (folder / "policies.csv").write_text("\n".join([head, *dealt]) + "\n")


def _brush(view) -> None:
    """Draw a rectangle over the left half of the chart."""
    view.locator("#figure-gains").evaluate("each => each.scrollIntoView({block: 'center'})")
    view.wait_for_timeout(700)  # it scrolls smoothly
    frame = "#figure-gains svg.marks .mark-group.role-frame.root .background"
    box = view.locator(frame).first.bounding_box()
    view.mouse.move(box["x"] + 5, box["y"] + 5)
    view.mouse.down()
    view.mouse.move(box["x"] + box["width"] * 0.45, box["y"] + box["height"] - 5, steps=4)
    view.mouse.up()
    view.wait_for_timeout(200)
