"""A label is recognised where it can only be that one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamp.labels import normalise_label
from lamp.tasks import TASKS


@pytest.mark.parametrize(
    "written",
    [
        "sci-fi",
        "Sci-Fi",
        " SCI-FI.",
        "[sci-fi]",
        "**sci-fi**",
        '"sci-fi"',
        "sci‑fi",
        "\u200esci-fi",
    ],
)
def test_case_space_and_surrounding_punctuation_do_not_change_a_tag(written):
    assert normalise_label(TASKS["lamp_2"], written) == "sci-fi"


@pytest.mark.parametrize(
    "written", ["", "science fiction", "sci-fi, comedy", "scifi", "not sci-fi", "sci-fi (?)", "4"]
)
def test_what_is_no_single_tag_is_none(written):
    assert normalise_label(TASKS["lamp_2"], written) is None


@pytest.mark.parametrize(
    "written", ["4", " 4 ", "4.0", "4.00", "4 stars", "4 Stars.", "4-star", "[4]", "4.", "４"]
)
def test_a_whole_number_of_stars_is_read(written):
    assert normalise_label(TASKS["lamp_3"], written) == "4"


@pytest.mark.parametrize(
    "written", ["4.5", "0", "6", "-4", "+4", "4/5", "4 of 5", "four", "4 5", "44", "4.0.0", "stars"]
)
def test_what_may_be_another_rating_is_none(written):
    assert normalise_label(TASKS["lamp_3"], written) is None


def test_a_choice_between_two_references_is_read():
    assert normalise_label(TASKS["lamp_1"], "[2]") == normalise_label(TASKS["lamp_1"], "2") == "[2]"


def test_a_task_of_free_text_has_no_labels():
    assert normalise_label(TASKS["lamp_4"], "anything") is None


@pytest.mark.parametrize("task", [task for task in TASKS.values() if task.labels])
def test_every_label_is_itself(task):
    labels = task.pair_labels or task.labels
    assert [normalise_label(task, label) for label in labels] == list(labels)


@given(st.text())
def test_no_text_raises(text):
    for task in TASKS.values():
        label = normalise_label(task, text)
        assert label is None or label in (*task.pair_labels, *task.labels)
