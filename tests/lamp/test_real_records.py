"""The official files at hand, read as a user would; nothing of them is copied into this tree."""

from __future__ import annotations

import json
from functools import cache

import pytest

from conf.compose import compose
from lamp.dataset import corpus_users, load
from lamp.files import read_outputs, write_predictions
from lamp.metrics import pooled_metrics, score_query
from lamp.records import Pair
from lamp.tasks import query_text, training_prompt

pytestmark = pytest.mark.realdata

# task: users, queries besides what the one public user has in common with the others;
# contaminated queries among all users
SIZES = {
    "lamp_2": (542, 541, 0),
    "lamp_3": (351, 702, 7),
    "lamp_4": (218, 827, 0),
    "lamp_5": (357, 356, 3),
    "lamp_7": (1046, 1046, 14),
}


@pytest.fixture(params=[*SIZES])
def name(request):
    return request.param


@pytest.fixture(scope="module")
def real(shared_folder):
    """Load a task's records, once for all tests that ask for the same."""

    @cache
    def read(name, *overrides):
        folder = f"data={shared_folder / 'lamp'}"
        return load(compose([f"task={name}", folder, "model.build.holdout=0", *overrides]))

    return read


def test_real_files_give_their_users_and_queries(real, name):
    users, queries, contaminated = SIZES[name]
    data = real(name, f"users={users - 1}", "evaluation.exclude_contaminated=false")
    everybody = [*data.targets, *data.public]
    assert len(everybody) == users
    assert sum(len(user.queries) for user in everybody) == queries
    assert sum(map(len, data.contaminated.values())) == contaminated
    assert data.split == "user"
    assert not any("outside the label set" in note for note in data.notes)
    assert len(corpus_users(data, 0, 768)) == 1


def test_real_targets_have_the_longest_histories(real, name):
    data = real(name, "users=20")
    shortest_target = min(len(user.profile) for user in data.targets)
    assert shortest_target >= max(len(user.profile) for user in data.public)
    assert all(pair.input for user in data.targets for pair in user.pairs)


def test_real_equal_histories_are_chosen_by_id(real):
    data = real("lamp_3", "users=20")
    assert any("a history of 8 records: 351 of 351;" in note for note in data.notes)
    ids = [user.user_id for user in (*data.targets, *data.public)]
    assert [user.user_id for user in data.targets] == sorted(ids)[:20]


def test_real_queries_have_the_wording_that_pairs_are_trained_with(real, name):
    data = real(name, "users=20")
    for user in (*data.targets, *data.public):
        for query in user.queries:
            text = query_text(data.task, query)
            assert query.input.endswith(text)
            if name != "lamp_7":
                assert training_prompt(data.task, Pair("i", text, ""))[0] == query.input


def test_real_golds_score_full_marks_against_themselves(real, name, tmp_path):
    data = real(name, "users=20")
    queries = [query for user in data.targets for query in user.queries]
    metrics = pooled_metrics(
        data.task, [score_query(data.task, query.gold, query.gold) for query in queries], seed=0
    )
    assert metrics["parse_failure_rate"] == 0
    best = {"accuracy": 1.0, "mae": 0.0, "rouge1": 1.0}
    assert {key: metrics[key] for key in best if key in metrics}.items() <= best.items()
    path = tmp_path / "predictions.json"
    write_predictions(path, data.task, {query.id: query.gold for query in queries})
    assert read_outputs(path).task == data.task.official
    assert len(json.loads(path.read_text(encoding="utf-8"))["golds"]) == len(queries)
