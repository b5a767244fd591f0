"""BERTScore of all users who were answered together in one go, up to the paper's table."""

from __future__ import annotations

import numpy as np
import pytest

from conf.compose import compose
from lamp.bertscore import BertScore, load_bertscore
from lamp.metrics import metrics_of_sums
from lamp.records import Query, UserHistory
from lamp.tasks import TASKS
from models.generation import Generation
from protocol import answers
from protocol.settings import settings_of
from sim.report import tables
from sim.report.paper_tables import table1_layout
from sim.report.pooling import summarise
from sim.report.run_records import read_run
from storage import jsonlines
from strategy.run_log import answer_rows

SAID = {"ana": ["the cat sat", " a dog"], "ben": [], "cem": ["", "the mat"]}
GOLD = {"ana": ["a cat sat ", "a dog"], "ben": [], "cem": ["a dog", "on a mat"]}


def replies(folder, *, disclose="queries", said=SAID, gold=GOLD):
    settings = settings_of(
        compose(
            ["task=lamp_4", f"evaluation.bertscore={folder}", f"evaluation.disclose={disclose}"]
        )
    )
    users = [
        UserHistory(name, (), (), tuple(Query(f"{name}-{n}", "x", g) for n, g in enumerate(own)))
        for name, own in gold.items()
    ]
    given = [[Generation(text, 3, finished=True) for text in own] for own in said.values()]
    return answers.scored_replies(users, "device", given, settings, seconds=12.0)


@pytest.fixture
def batches(monkeypatch):
    """How many texts each call of the scorer has had."""
    found, score = [], BertScore.score

    def counted(self, predictions, golds):
        found.append(len(predictions))
        return score(self, predictions, golds)

    monkeypatch.setattr(BertScore, "score", counted)
    return found


def test_texts_of_all_users_are_scored_at_once_and_each_gets_the_own_scores(bert_folder, batches):
    ana, ben, cem = replies(bert_folder)
    assert batches == [4]
    scorer = load_bertscore(str(bert_folder), "cpu")
    expected = [scorer.score([SAID[n][i]], [GOLD[n][i]])[0] for n in ("ana", "cem") for i in (0, 1)]
    assert (*ana.bertscore, *cem.bertscore) == pytest.approx(expected, abs=1e-6)
    assert (ana.bertscore[1], cem.bertscore[0], ben.bertscore) == (pytest.approx(1), 0.0, ())
    assert [each.seconds for each in (ana, ben, cem)] == [6.0, 0.0, 6.0]


def test_sums_carry_it_too(bert_folder):
    (one, *_), (summed, *_) = replies(bert_folder), replies(bert_folder, disclose="sums")
    assert summed.bertscore == ()
    pooled = metrics_of_sums(TASKS["lamp_4"], np.array(summed.sums))
    assert pooled["bertscore"] == pytest.approx(sum(one.bertscore) / 2)


def test_table_1_has_its_row(bert_folder, make_run):
    folder = make_run(users=2, methods=("device",), layout="table1")
    (folder / "answers.jsonl").unlink()
    users = ("user-000", "user-001")
    said = dict(zip(users, (SAID["ana"], SAID["cem"]), strict=True))
    gold = dict(zip(users, (GOLD["ana"], GOLD["cem"]), strict=True))
    found = replies(bert_folder, said=said, gold=gold)
    for reply in found:
        jsonlines.append(folder / "answers.jsonl", answer_rows(reply.user_id, reply))
    mean = sum(value for reply in found for value in reply.bertscore) / 4
    layout = table1_layout([summarise([read_run(folder)])])
    lines = tables.to_markdown(layout.tables["table1"]).splitlines()
    (row,) = [line for line in lines if "BERT" in line]
    assert f"{mean:.3f}".lstrip("0") in row
