"""Whatever names and texts a run holds, its charts, tables, report, page and terminal show them."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace

import pytest
import vl_convert
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.report.page import page
from sim.report.report import CASES, PAGE, REPORT, show, write_report
from sim.terminal import PlainConsole
from storage import jsonlines
from tests.sim.conftest import composed, failure
from tests.sim.report.test_any_text import SHOWN_EXAMPLES, TEXT

pytestmark = pytest.mark.slow
USERS = tuple(f"user-{number:03d}" for number in range(10))
RUNS = SHOWN_EXAMPLES // len(USERS)  # each user of each run is an example
CHARTS = {"scores", "gains", "filters", "wire", "losses", "phases"}
FILES = ("answers", "adaptations", "augmentation", "ledger", "failures")


@pytest.fixture
def plain(make_run, monkeypatch):
    """A small run with every kind of line; drawn as SVG alone, which PNGs are made from."""
    folder = make_run(
        users=len(USERS),
        queries=1,
        methods=("direct_ft", "cdcda"),
        evaluation=replace(composed("lamp_4").evaluation, bootstrap=20),
        permutations=20,
        data="/data/[red]$x$|`a`<b>",
    )
    jsonlines.append(folder / "failures.jsonl", [failure("cdcda", user) for user in USERS])
    monkeypatch.setattr("os.fsync", lambda _: None)
    monkeypatch.setattr(page, "_bundle", lambda: "/* bundle */")
    monkeypatch.setattr(vl_convert, "svg_to_png", lambda *_, **__: b"")
    return folder


def rename(folder, names, texts):
    """Write ``texts`` in the place of users, groups, queries, reasons and answers."""
    users = dict(zip(USERS, names, strict=True))
    more = dict(zip(USERS, texts, strict=True))
    for name in FILES:
        path, rows = folder / f"{name}.jsonl", []
        for row in jsonlines.read(folder / f"{name}.jsonl"):
            text, other, third = more.get(row["user"], ("", "", ""))
            row["user"] = users.get(row["user"], row["user"])
            if name == "answers":
                row |= {"text": text, "gold_text": other, "query": third + row["query"]}
            if name == "failures":
                row |= {"kind": text, "reason": other}
            rows.append(row)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "registry.json").write_text(json.dumps([{"user_id": name} for name in names]))
    table = io.StringIO()
    rows = [(users[user], 0.5, text) for user, (_, _, text) in more.items()]
    csv.writer(table).writerows([("user_id", "ratio", "group"), *rows])
    (folder / "policies.csv").write_text(table.getvalue(), encoding="utf-8")


def test_every_chart_table_and_page_of_a_run_shows_every_text(plain):
    before = {path: path.read_bytes() for path in plain.iterdir() if path.is_file()}
    count = {"min_size": len(USERS), "max_size": len(USERS)}

    @settings(max_examples=RUNS)
    @given(
        names=st.lists(TEXT.filter(str.strip), unique=True, **count),
        texts=st.lists(st.tuples(TEXT, TEXT, TEXT), **count),
        encoding=st.sampled_from(["utf-8", "ascii"]),
    )
    def check(names, texts, encoding):
        for path, content in before.items():
            path.write_bytes(content)
        rename(plain, names, texts)
        results = write_report([plain])
        assert {path.stem for path in (plain / "plots").glob("*.svg")} >= CHARTS
        written = (plain / PAGE).read_text(encoding="utf-8")
        data = json.loads(re.search(r'id="data">(.*?)</script>', written, re.DOTALL)[1])
        assert len(data["users"]) == len(USERS)
        for name in (REPORT, CASES):
            assert "cdcda" in (plain / name).read_text(encoding="utf-8")
        out = io.BytesIO()
        stream = io.TextIOWrapper(out, encoding=encoding, errors="replace", write_through=True)
        show(results[0], PlainConsole(file=stream, width=80))
        assert b"cdcda" in out.getvalue()

    check()
