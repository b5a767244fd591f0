"""Every published format from a small file made by hand."""

from __future__ import annotations

import json

import pyarrow
import pyarrow.parquet
import pytest

from conf.compose import compose
from conf.errors import DataError
from conf.schema import DialogueConfig
from lamp import dataset
from lamp.dialogue.dialogues import Dialogue, read_file, read_folder
from lamp.dialogue.users import split

ORCA = {"id": "niv.24", "system_prompt": "Be brief.", "question": "Why?", "response": "So."}
EMPATHETIC = """conv_id,utterance_idx,context,prompt,speaker_idx,utterance,selfeval,tags
hit:0_conv:1,1,sentimental,p,1,I miss him_comma_ a lot.,5|5|5,
hit:0_conv:1,2,sentimental,p,0,Was he a friend?,5|5|5,
hit:0_conv:1,3,sentimental,p,1,Yes.,5|5|5,
hit:0_conv:1,4,sentimental,p,0,Where is he?,5|5|5,
hit:0_conv:1,5,sentimental,p,1,Gone.,5|5|5,
"""
RAW_MEDDIALOG = """id=1
https://example.org/1
Description
Q. Is a cough normal?

Dialogue
Patient:
I have a cough.
Since Monday.
Doctor:
Drink tea.

id=2
https://example.org/2
Description
Q. Other

Dialogue
Patient:
My knee hurts.
Doctor:
Rest it.
"""
FILES = {
    "own.jsonl": (
        '{"id": "a", "question": "Q", "answer": "A", "domain": "d"}',
        [("Q", "A", "d")],
    ),
    "alpaca.json": (
        json.dumps(
            [
                {"instruction": "Sum up.", "input": "A text.", "output": "Text."},
                {"instruction": "Say hi.", "input": "", "output": "Hi."},
            ]
        ),
        [("Sum up.\nA text.", "Text.", "alpaca"), ("Say hi.", "Hi.", "alpaca")],
    ),
    "dolly.jsonl": (
        '{"instruction": "Who?", "context": "Ann.", "response": "Ann", "category": "closed_qa"}',
        [("Who?\nAnn.", "Ann", "closed_qa")],
    ),
    "prosocial.json": (  # JSON lines although the suffix says .json, as on the hub
        '{"context": "I lie.", "response": "Why lie?", "rots": [], "safety_label": "__caution__"}'
        '\n{"context": "I steal.", "response": "Stop.", "rots": [], "safety_label": "__caution__"}',
        [("I lie.", "Why lie?", "__caution__"), ("I steal.", "Stop.", "__caution__")],
    ),
    "empathetic.csv": (
        EMPATHETIC,
        [
            ("I miss him, a lot.", "Was he a friend?", "sentimental"),
            ("Yes.", "Where is he?", "sentimental"),
        ],
    ),
    "orca.jsonl": (json.dumps(ORCA), [("Be brief.\nWhy?", "So.", "niv")]),
    "med.json": (
        json.dumps(
            [
                {"description": "Q", "utterances": ["patient: I cough.", "doctor: Tea."]},
                {"description": "Only this", "utterances": ["doctor: Rest."]},
            ]
        ),
        [("I cough.", "Tea.", "medical"), ("Only this", "Rest.", "medical")],
    ),
    "med.txt": (
        RAW_MEDDIALOG,
        [
            ("I have a cough. Since Monday.", "Drink tea.", "medical"),
            ("My knee hurts.", "Rest it.", "medical"),
        ],
    ),
}


@pytest.mark.parametrize("name", sorted(FILES))
def test_each_published_format_is_read(tmp_path, name):
    content, expected = FILES[name]
    (tmp_path / name).write_text(content, encoding="utf-8")
    found = read_file(tmp_path / name)
    assert [(each.question, each.answer, each.domain) for each in found] == expected
    assert len({each.id for each in found}) == len(found)


def test_open_orca_comes_as_parquet_too(tmp_path):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([ORCA]), tmp_path / "orca.parquet")
    (found,) = read_folder(tmp_path)
    assert (found.question, found.answer, found.domain) == ("Be brief.\nWhy?", "So.", "niv")


ROWS = (  # of each format a whole one; null or absence of any field must come to the same
    {"question": "Q", "answer": "A", "domain": "d"},
    {"instruction": "I", "input": "x", "output": "O"},
    {"instruction": "I", "context": "x", "response": "R", "category": "c"},
    ORCA,
    {"context": "C", "response": "R", "safety_label": "s"},
    {"description": "D", "utterances": ["patient: P", "doctor: A"]},
)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: next(iter(row)))
def test_null_is_as_good_as_absent(tmp_path, row):
    for field in row:
        found = []
        for other in ({**row, field: None}, {key: row[key] for key in row if key != field}):
            (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, (row, other))))
            found.append(read_folder(tmp_path)[1])
        assert found[0] == found[1]
        assert "None" not in (found[0].question, found[0].answer, found[0].domain)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", "{", "a.jsonl line 1 column 2: expected JSON"),
        ("a.jsonl", '{"text": "x"}', "expected the fields of a known format"),
        ("a.jsonl", '{"question": "Q", "answer": "A"}\n{"question": 5}', "AttributeError"),
        ("a.json", "[1]", "expected JSON objects"),
        ("a.txt", "hello", "lines id=<n>, got none"),
        ("a.parquet", "hello", "expected a Parquet file"),
        ("readme.md", "hello", "there is none; check `data`"),
    ],
)
def test_a_bad_file_is_refused_with_file_and_remedy(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        read_folder(tmp_path)


def test_a_line_of_json_may_hold_any_other_line_separator(tmp_path):
    row = {"question": "a\u2028b\x85c", "answer": "d\u2029e"}
    (tmp_path / "a.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n", "utf-8")
    (found,) = read_folder(tmp_path)
    assert (found.question, found.answer) == (row["question"], row["answer"])


def test_files_of_one_stem_give_different_ids(tmp_path):
    for name in ("a.json", "a.jsonl", "b.jsonl"):
        row = json.dumps({"question": f"from {name}?", "answer": "yes"})
        (tmp_path / name).write_text(f"[{row}]" if name == "a.json" else row)
    assert [each.id for each in read_folder(tmp_path)] == ["a.json-0", "a.jsonl-0", "b-0"]


def dialogues(**sizes: int) -> list[Dialogue]:
    return [
        Dialogue(f"{domain}-{n}", f"{domain} question {n}", f"answer {n}", domain)
        for domain, size in sizes.items()
        for n in range(size)
    ]


def test_users_have_a_domain_of_their_own_and_share_no_dialogue():
    config = DialogueConfig(records=8, queries=2, focus=0.8)
    users = split(dialogues(a=60, b=30, c=10), config, max_words=50)
    assert len(users) == 10
    taken = [pair.id for user in users for pair in user.pairs]
    taken += [query.id for user in users for query in user.queries]
    assert len(set(taken)) == len(taken) == 100
    for user in users:
        assert (len(user.pairs), len(user.queries)) == (8, 2)
    largest = [
        max(sum(item.fields["domain"] == domain for item in user.profile) for domain in "abc")
        for user in users
    ]
    assert sum(each >= 5 for each in largest) >= 8  # 8 of 10 of the own domain, 2 of them held out


def test_the_split_is_the_same_for_the_same_seed():
    config = DialogueConfig(records=8, queries=2)
    first, again = (split(dialogues(a=60, b=30), config, 50) for _ in range(2))
    other = split(dialogues(a=60, b=30), DialogueConfig(records=8, queries=2, seed=1), 50)
    assert first == again
    assert first != other


def test_too_few_dialogues_for_one_user_are_refused():
    with pytest.raises(DataError, match="at least 10 different dialogues for one user, got 9"):
        split(dialogues(a=9), DialogueConfig(records=8, queries=2), 50)


def test_the_dialogue_task_loads_users_and_counts_what_it_leaves_out(tmp_path):
    rows = [
        {"question": f"question {n % 50}", "answer": f"a {n}", "domain": "d"} for n in range(60)
    ]
    rows += [{"question": "q", "answer": " "}, {"question": None, "answer": "a"}]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, rows)))
    words = ["task=dialogue", f"data='{tmp_path}'", "users=2", "dialogue.records=8"]
    data = dataset.load(compose([*words, "dialogue.queries=2", "model=qwen2.5"]))
    assert [user.user_id for user in data.targets] == ["user-0000", "user-0001"]
    assert len(data.public) == 3
    assert data.notes[0].startswith("dialogues: 50 of 62 are used")
    assert data.contaminated == {}


def test_the_miniature_world_has_no_dialogues():
    with pytest.raises(DataError, match="give data=<folder of dialogues>"):
        dataset.load(compose(["task=dialogue"]))


def test_real_dialogues_are_split_by_domain(shared_folder):
    folder = shared_folder / "dialogue"
    if not folder.is_dir():
        pytest.skip("needs ../shared/dialogue, which is not there")
    words = ["task=dialogue", f"data='{folder}'", "users=5", "model=qwen2.5"]
    data = dataset.load(compose(words))
    assert len(data.targets) == 5
    assert len(data.public) > 30
    assert {len(user.pairs) for user in data.targets} == {100}
