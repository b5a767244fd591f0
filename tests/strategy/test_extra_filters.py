"""Further filters object behind the three: a classifier that is sure, a person's marks."""

from __future__ import annotations

import csv
import random

import pytest

from conf.errors import DataError, RunError
from conf.schema import FiltersConfig
from lamp.records import Pair
from strategy.extra_filters import review_id, with_extra_filters
from strategy.filters import Candidate, Scores, select, select_random, select_readable

GOOD, ODD = Scores(0.9, 0.9, 0.5, 1.0, 1.0), Scores(0.1, 0.9, 0.5, 1.0, 1.0)
WORDS = ["red", "blue", "green", "round", "small", "large", "near", "far"]


def texts(marker: str, count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return [" ".join([marker, *draw.choices(WORDS, k=5), str(n)]) for n in range(count)]


def material(markers: list[str]):
    """One user with 30 shared texts and as many candidates; half of them carry each marker."""
    shared = tuple(Pair(f"r{n}", text, "y") for n, text in enumerate(texts("own", 30, 1)))
    written = [texts(markers[n % 2], 30, 2 + n % 2)[n] for n in range(30)]
    candidates = tuple(
        Candidate(f"r{n}", Pair(f"r{n}/0", text, "y"), None, GOOD) for n, text in enumerate(written)
    )
    return {"ana": candidates}, {"ana": shared}


def test_the_classifier_drops_what_gives_itself_away():
    candidates, shared = material(["own", "robotic"])
    config = FiltersConfig(adversarial=0.7)
    judged = with_extra_filters(candidates, shared, config, seed=0)["ana"]
    selection = select(judged, config)
    assert selection.rejected["adversarial"] >= 13
    assert sum("robotic" in pair.input for pair in selection.kept) <= 2
    assert sum("own" in pair.input for pair in selection.kept) >= 13
    assert judged == with_extra_filters(candidates, shared, config, seed=0)["ana"]


def test_a_classifier_without_texts_says_nothing():
    candidates, shared = material(["own", "robotic"])
    few = {"ana": candidates["ana"][:5]}
    assert with_extra_filters(few, shared, FiltersConfig(adversarial=0.5), seed=0) == few
    assert with_extra_filters(candidates, shared, FiltersConfig(), seed=0) is candidates


def test_an_objection_counts_behind_the_three_filters():
    bad = Candidate("r", Pair("r/0", "x", "y"), None, ODD, rejected_by="review")
    fine = Candidate("r", Pair("r/1", "x", "y"), None, GOOD, rejected_by="review")
    assert select([bad, fine], FiltersConfig()).rejected == {"scf": 1, "review": 1}
    assert len(select_readable([bad, fine]).kept) == 2  # -DS asks no filter
    assert select_random([bad, fine], FiltersConfig(), 0).kept == ()  # RS: as many as are kept


SHARED = {"ana": (Pair("r0", "a fine film", "classic"),)}
THREE = {
    "ana": tuple(
        Candidate("r0", Pair(f"r0/{n}", text, "classic"), None, scores)
        for n, (text, scores) in enumerate(
            [('a good film, "really"', GOOD), ("a nice film", GOOD), ("no film", ODD)]
        )
    )
}


def test_a_person_marks_the_exported_file_and_it_is_read_back(tmp_path):
    path = tmp_path / "review.csv"
    config = FiltersConfig(review=str(path))
    with pytest.raises(RunError, match=r"has been written with 2 candidates; fill its column keep"):
        with_extra_filters(THREE, SHARED, config, seed=0)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["input"] for row in rows) == ['a good film, "really"', "a nice film"]
    assert {row["shared"] for row in rows} == {"a fine film"}
    mark(path, rows, {"a nice film": "Y", 'a good film, "really"': "n"})
    selection = select(with_extra_filters(THREE, SHARED, config, seed=0)["ana"], config)
    assert [pair.input for pair in selection.kept] == ["a nice film"]
    assert selection.rejected == {"review": 1, "scf": 1}
    mark(path, rows, {"a nice film": "y"})
    selection = select(with_extra_filters(THREE, SHARED, config, seed=0)["ana"], config)
    assert selection.rejected == {"unreviewed": 1, "scf": 1}


def mark(path, rows, marks: dict[str, str]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows({**row, "keep": marks.get(row["input"], "")} for row in rows)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,keep\nabc,perhaps\n", r"line 2, column keep: expected y or n, got 'perhaps'"),
        ("a,b\n1,2\n", r"expected the columns id, keep, got 'a,b'"),
        ("", "got an empty file"),
    ],
)
def test_a_spoilt_review_file_is_refused(tmp_path, text, message):
    path = tmp_path / "review.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        with_extra_filters(THREE, SHARED, FiltersConfig(review=str(path)), seed=0)


def test_marks_outlive_a_run_and_another_users_record_of_the_same_text():
    one, other = Pair("r0/0", "x", "y"), Pair("r9/3", "x", "y")
    source = Pair("r0", "s", "t")
    assert review_id(source, one) == review_id(Pair("r9", "s", "u"), other)
    assert review_id(source, one) != review_id(source, Pair("r0/0", "x", "z"))
