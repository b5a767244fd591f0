"""Reading a run folder: what is checked, what may be missing, which line counts."""

from __future__ import annotations

import pytest

from conf.errors import RunError
from sim.report.run_records import ArmName, read_run
from sim.run.provision import Preference, write_policies
from storage import jsonlines


def test_reads_everything_a_run_wrote(make_run):
    run = read_run(make_run(users=4, missing={"cdcda": ("user-002",)}))
    assert run.registry == ("user-000", "user-001", "user-002", "user-003")
    assert [arm.name for arm in run.arms] == ["device", "direct_ft", "direct_ft_matched", "cdcda"]
    assert len(run.answers["device"]) == 40
    assert run.adaptations["direct_ft", "user-001"].records == 30
    assert [failure.user for failure in run.failures] == ["user-002"]
    assert run.world == "miniature world"
    assert 0 <= run.preferences["user-000"].ratio <= 1


def test_ratio_sweeps_make_one_arm_each(make_run):
    run = read_run(make_run(users=2, methods=("device", "cdcda"), ratios=(0.5, 1.0)))
    assert run.arms == (
        ArmName("device", "device", None),
        ArmName("cdcda@0.5", "cdcda", 0.5),
        ArmName("cdcda@1", "cdcda", 1.0),
    )


def test_folder_without_config_is_no_run(tmp_path):
    with pytest.raises(RunError, match=r"expected a run folder with config\.json"):
        read_run(tmp_path)


def test_run_that_has_only_begun_can_be_read(make_run):
    folder = make_run(users=2)
    for path in folder.iterdir():
        if path.name != "config.json":
            path.unlink()
    run = read_run(folder)
    assert run.answers == {}
    assert run.registry == ()


def test_answer_given_again_after_a_restart_counts_once(make_run):
    folder = make_run(users=2)
    line = next(jsonlines.read(folder / "answers.jsonl"))
    jsonlines.append(folder / "answers.jsonl", [{**line, "rouge1": 0.125}])
    answers = read_run(folder).answers["device"]
    assert len(answers) == 20
    assert answers[0].rouge1 == 0.125


def test_answers_stand_in_gold_order_where_the_manifest_knows_it(make_run):
    folder = make_run(users=2, queries=2)
    (folder / "manifest.json").write_text('{"gold_order": ["1-1", "0-0", "1-0", "0-1"]}')
    answers = read_run(folder).answers["device"]
    assert [answer.query for answer in answers] == ["1-1", "0-0", "1-0", "0-1"]


def test_answers_stand_by_user_and_file_order_otherwise(make_run):
    answers = read_run(make_run(users=2, queries=2)).answers["device"]
    assert [answer.query for answer in answers] == ["0-0", "0-1", "1-0", "1-1"]


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("answers", {"arm": "device", "user": "u"}, r"answers\.jsonl line 21, field 'query'"),
        ("augmentation", {"arm": "cdcda"}, r"augmentation\.jsonl line 3, field 'user'"),
    ],
)
def test_damaged_line_is_named(make_run, name, line, message):
    folder = make_run(users=2, methods=("device", "cdcda"), queries=5)
    jsonlines.append(folder / f"{name}.jsonl", [line])
    with pytest.raises(RunError, match=message):
        read_run(folder)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("manifest.json", "{"),
        ("manifest.json", "[]"),
        ("registry.json", "[1]"),
        ("policies.csv", "user_id,ratio\na,1\n"),
        ("policies.csv", "user_id,ratio,group\na,much,x\n"),
        ("config.json", "{}"),
    ],
)
def test_damaged_file_is_named(make_run, name, content):
    folder = make_run(users=2)
    (folder / name).write_text(content)
    with pytest.raises(RunError, match=f"a-run/{name}"):
        read_run(folder)


def test_title_never_shows_where_the_data_lie(make_run):
    run = read_run(make_run(users=2, data="/somewhere/private/lamp"))
    assert run.world == "lamp"


def test_the_rounds_of_a_federated_training_are_added_up(make_run):
    folder = make_run(users=2, methods=("direct_ft", "fedavg"))
    once = read_run(folder).adaptations["fedavg", "user-001"]
    line = next(
        line
        for line in jsonlines.read(folder / "adaptations.jsonl")
        if (line["arm"], line["user"]) == ("fedavg", "user-001")
    )
    again = [{**line, "round": 1, "steps": 7, "losses": [0.25]}] * 2  # told twice, after a restart
    jsonlines.append(folder / "adaptations.jsonl", again)
    found = read_run(folder).adaptations["fedavg", "user-001"]
    assert found.steps == once.steps + 7
    assert found.losses == (*once.losses, 0.25)
    assert (found.seconds, found.tokens) == (2 * once.seconds, 2 * once.tokens)
    assert found.records == once.records


def test_a_user_id_may_hold_any_line_separator(make_run):
    folder = make_run(users=1)
    write_policies(folder / "policies.csv", {"a\u2028b\nc": Preference(0.5, "open")})
    assert read_run(folder).preferences["a\u2028b\nc"].ratio == 0.5


def test_a_users_answers_count_once_all_of_them_are_there(make_run):
    folder = make_run(users=2, methods=("device",), queries=3)
    path = folder / "answers.jsonl"
    rows = [{**row, "of": 3, "provenance_key": "first"} for row in jsonlines.read(path)]
    path.unlink()
    jsonlines.append(path, rows[:-1])  # the crash took the last line of the last user
    (first, second) = {row["user"]: None for row in rows}
    assert {each.user for each in read_run(folder).answers["device"]} == {first}
    jsonlines.append(path, rows[3:])  # resumed: that user's answers again
    assert [each.user for each in read_run(folder).answers["device"]] == [first] * 3 + [second] * 3
    again = [{**row, "provenance_key": "second", "rouge1": 0.125} for row in rows[:3]]
    jsonlines.append(path, again[:2])  # a new adapter, and a crash again
    scores = [each.rouge1 for each in read_run(folder).answers["device"]]
    assert scores == [row["rouge1"] for row in rows]
    jsonlines.append(path, again[2:])
    assert [each.rouge1 for each in read_run(folder).answers["device"]][:3] == [0.125] * 3
