"""The benchmarks run at a tiny size and write their table; nothing here looks at times."""

from __future__ import annotations

import sys

import pytest

from benchmarks import __main__ as command
from benchmarks import adaptation, answering, device_start, generation, measure, nli
from conf.schema import TransformerSize

TINY = TransformerSize(layers=1, width=64, heads=2, feed_forward=64)
# what the peers' libraries warn about is no matter of ours
pytestmark = pytest.mark.filterwarnings("ignore")


def test_adaptation_says_what_is_not_installed_and_measures_the_rest(monkeypatch):
    monkeypatch.setitem(sys.modules, "trl", None)
    tables = adaptation.run(size=TINY, records=3, rounds=1)
    assert [table.setting.split(";")[0][-8:] for table in tables] == ["bfloat16", " float32"]
    for table in tables:
        flower_tune, *others = table.rows
        assert (flower_tune.seconds, flower_tune.result) == (None, "not installed: trl")
        assert all(row.seconds > 0 and float(row.result) > 0 for row in others)
        assert "| (a) | FlowerTune" in measure.markdown(table)


def test_answering_together_gives_as_many_tokens():
    (table,) = answering.run(sizes=(TINY,), rounds=1)
    assert len({row.result for row in table.rows}) == 1


def test_generation_runs():
    (table,) = generation.run(size=TINY, records=4, peer_records=1, samples=(2,), rounds=1)
    assert all(float(row.result) > 0 for row in table.rows)


def test_nli_scores_are_the_peers():
    (table,) = nli.run(size=TINY, pairs=8, rounds=1)
    assert len({row.result for row in table.rows}) == 1


def test_best_round_counts_and_the_first_is_a_warm_up(monkeypatch):
    clock = iter([0, 9, 10, 14, 20, 22, 30, 33])  # two ways, two rounds: 9 and 4, then 2 and 3
    monkeypatch.setattr(measure.time, "perf_counter", lambda: next(clock))
    ways = [measure.Way(name, lambda: "done", 2) for name in ("one", "two")]
    assert [row.seconds for row in measure.measure(ways, rounds=2)] == [1.0, 1.5]


def test_table_counts_times_against_every_row_above():
    rows = (
        measure.Row("slow", 6.0, "x"),
        measure.Row("none", None, "y"),
        measure.Row("fast", 2, "z"),
    )
    text = measure.markdown(measure.Table("way", "Small.", "user", "what", rows))
    assert text.splitlines()[2:] == [
        "|  | way | s per user | × (a) | × (b) | what |",
        "|---|---|---|---|---|---|",
        "| (a) | slow | 6 | 1.00 | – | x |",
        "| (b) | none | – | – | – | y |",
        "| (c) | fast | 2 | 3.00 | – | z |",
    ]


def test_results_are_appended_with_commit_and_machine(tmp_path):
    path = tmp_path / "RESULTS.md"
    for name in ("one", "two"):
        measure.append(name, [measure.Table("way", "Small.", "user", "what", ())], path)
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# Results")
    assert text.count("Commit ") == 2
    assert text.index("## one") < text.index("## two")


def test_unknown_name_is_refused(capsys):
    with pytest.raises(SystemExit):
        command.main(["adaptatoin"])
    assert "no benchmark 'adaptatoin'; known: adaptation" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.long
def test_a_running_trainer_spares_a_message_the_libraries_and_the_base():
    (sheet,) = device_start.run(size=TINY, records=3, queries=1)
    assert [row[:2] for row in sheet.rows] == [
        ("train.adapt", "own process"),
        ("evaluate.answer", "own process"),
        ("train.adapt", "trainer, started by it"),
        ("train.adapt", "trainer, there"),
        ("evaluate.answer", "trainer, there"),
    ]
    seconds = [float(row[6]) for row in sheet.rows]
    assert max(seconds[3:]) < min(seconds[:3])  # processor time: a busy machine changes nothing
