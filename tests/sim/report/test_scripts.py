"""No report is silent about answers that LaMP's ROUGE cannot see, however they are disclosed."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest

from clients.outbound import thinned
from clients.policy import Policy
from conf.compose import compose
from conf.errors import RunError
from lamp.records import Query, UserHistory
from models.generation import Generation
from protocol.answers import scored_replies
from protocol.codec import decode, encode
from protocol.messages import AnswerReply
from protocol.settings import settings_of
from sim.report import caveats, score_tables
from sim.report.pooling import summarise
from sim.report.run_records import read_run
from sim.report.tables import to_markdown
from storage import jsonlines
from strategy.run_log import answer_rows

pytestmark = pytest.mark.usefixtures("undrawn")

GOLDS = ("港湾大桥今日开放", "новый мост открыт", "Old bridge opens")
ANSWERS = ("港湾大桥今日", "новый мост", "Old bridge")
TOLD = [(disclose, numbers) for disclose in ("queries", "sums") for numbers in ("exact", "coarse")]


def reply(user: str, disclose: str, numbers: str, answers=ANSWERS) -> AnswerReply:
    """What a device sends of its answers, over the wire and back."""
    settings = settings_of(compose(["task=lamp_4", f"evaluation.disclose={disclose}"]))
    queries = tuple(Query(f"{user}-{n}", "a question", gold) for n, gold in enumerate(GOLDS))
    asked = UserHistory(user, (), (), queries)
    given = [Generation(text, 3, finished=True) for text in answers]
    (made,) = scored_replies([asked], "device", [given], settings, seconds=1.0)
    policy = Policy(1.0, numbers=numbers, minimum=1, task=settings.task)
    return decode(AnswerReply, encode(thinned(made, policy)))


@pytest.fixture
def reported(make_run):
    """The results of a run whose two users disclosed their answers in one way."""

    def reported(disclose: str, numbers: str):
        folder = make_run(users=2, methods=("device",))
        (folder / "answers.jsonl").unlink()
        for user in ("user-000", "user-001"):
            rows = answer_rows(user, reply(user, disclose, numbers))
            jsonlines.append(folder / "answers.jsonl", rows)
        return summarise([read_run(folder)])

    return reported


@pytest.mark.parametrize(("disclose", "numbers"), TOLD)
def test_every_report_says_what_rouge_does_not_see(reported, disclose, numbers):
    told = " ".join(caveats.warnings(reported(disclose, numbers)))
    if numbers == "coarse":
        assert "100.0% of the users' scores come without those on Unicode tokens" in told
    else:
        assert "Under half of the letters of 66.7% of the gold answers are a-z" in told
        assert "without those on Unicode tokens" not in told


@pytest.mark.parametrize("disclose", ["queries", "sums"])
def test_the_score_on_unicode_tokens_stands_beside_lamps(reported, disclose):
    results = reported(disclose, "exact")
    found = results.arm("device").metrics["unicode_rouge1"]
    assert found.value == pytest.approx((2 * 6 / 14 + 2 * 2 / 5) / 2)
    assert (found.low, found.high) == pytest.approx((found.value, found.value))
    table = to_markdown(score_tables.outside_lamp_table(results))
    assert re.search(r"Unicode tokens.*\n.*\n.*\.829", table)


def test_a_report_in_latin_script_says_nothing_of_it(make_run):
    results = summarise([read_run(make_run(users=2, methods=("device",)))])
    assert "Unicode" not in " ".join(caveats.warnings(results))
    assert "unicode_rouge1" not in results.arm("device").metrics


def test_one_user_of_another_script_among_many_does_not_undo_the_others_intervals(make_run):
    folder = make_run(users=6, methods=("device", "direct_ft"))
    for arm in ("device", "direct_ft"):
        for row in answer_rows("user-900", replace(reply("user-900", "sums", "exact"), arm=arm)):
            jsonlines.append(folder / "answers.jsonl", [row])
    device = summarise([read_run(folder)]).arm("device")
    for name in ("rouge1", "rougeL"):
        found = device.metrics[name]
        assert None not in (found.low, found.high)
        assert math.isfinite(found.low)
    assert "unicode_rouge1" in device.differences["direct_ft"]


def test_sums_of_another_version_are_refused_with_the_remedy(make_run):
    folder = make_run(users=2, methods=("device",))
    (folder / "answers.jsonl").unlink()
    old = {"arm": "device", "user": "user-000", "query": None, "queries": 2, "sums": [2, 0, 1, 1]}
    jsonlines.append(folder / "answers.jsonl", [old])
    with pytest.raises(RunError, match=r"arm device, user 'user-000': expected 7 sums .*got 4"):
        summarise([read_run(folder)])
