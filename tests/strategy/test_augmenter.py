"""Step 2 as one object: what it writes, what it leaves, what it forgets, and that it ends."""

from __future__ import annotations

import pytest

from conf.errors import DataError
from conf.schema import AugmenterConfig, TaskConfig
from lamp.records import Pair
from storage import jsonlines
from strategy.augmentation import Counters, record_hash
from strategy.augmenter import Augmented, CloudAugmenter
from strategy.cache import Cache
from strategy.cloud_models import Cloud
from strategy.ledger import Ledger
from strategy.progress import LoggedProgress
from strategy.public import PublicUsers
from tests.plugins.stand_ins import Generator, NliScorer

TASK = TaskConfig(name="lamp_4", max_new_tokens=4)
SHARED = {"ana": (Pair("1", "a film about bridges", "title"),), "ben": ()}


@pytest.fixture
def make(tmp_path):
    """An augmenter over stand-ins, and how often its models were ended."""
    ended = []

    def made(config: AugmenterConfig | None = None, **more) -> CloudAugmenter:
        cloud = Cloud(Generator(), NliScorer(), end=lambda: ended.append("cloud"))
        public = PublicUsers(tmp_path / "nobody.jsonl", "")
        config = config or AugmenterConfig(k=3)
        return CloudAugmenter(config, TASK, cloud, public=public, cache=tmp_path, **more)

    made.ended = ended
    return made


def write(augmenter: CloudAugmenter, tmp_path, k: int = 3) -> Augmented:
    return augmenter.write(SHARED, k, Ledger(tmp_path / "ledger.jsonl"), LoggedProgress())


def test_k_candidates_are_written_and_the_models_end(make, tmp_path):
    augmented = write(make(), tmp_path)
    assert {user: len(own) for user, own in augmented.candidates.items()} == {"ana": 3, "ben": 0}
    assert augmented.counters.generated_replies == 3
    assert (augmented.lost, augmented.requests) == ("", None)
    assert make.ended == ["cloud"]
    assert not (tmp_path / "ledger.jsonl").exists()  # nothing left for an endpoint


def test_what_is_left_in_a_file_is_read_in_the_place_of_the_models(make, tmp_path):
    kept = tmp_path / "candidates.jsonl"
    written = write(make(save_to=kept), tmp_path)
    replayed = write(make(AugmenterConfig(k=3, file=str(kept))), tmp_path)
    assert replayed.candidates == written.candidates
    assert replayed.counters == Counters()
    assert len(list(jsonlines.read(kept))) == 3


def test_the_models_end_when_the_file_cannot_be_read(make, tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        write(make(AugmenterConfig(file=str(tmp_path / "nowhere.jsonl"))), tmp_path)
    assert make.ended == ["cloud"]


def test_forgetting_a_record_deletes_what_was_made_from_it(make, tmp_path):
    augmenter, cache = make(), Cache(tmp_path / "augmentation.sqlite")
    write(augmenter, tmp_path)
    records = [record_hash(pair) for pair in SHARED["ana"]]
    assert cache.of_records(records)
    augmenter.forget("ana", records)
    assert cache.of_records(records) == []


def test_who_goes_on_without_augmentation_is_said_in_one_line():
    lost = Augmented({}, Counters(lost={"eve": "timeout", "ana": "quota", "ben": "quota"})).lost
    assert lost == "3 users go on without augmentation: quota, timeout"
