"""The teacher's logits lie on disk, are read per user, and go with the run that wrote them."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch

from models.distillation import TOP, truncated
from protocol.codec import encode
from protocol.messages import AdaptRequest
from protocol.wire import serialise
from strategy.taught import PREFIX, ChosenLogits, StoredLogits, forget_logits


def rows(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(3, 5)).astype(np.float16)


@pytest.fixture
def stored(tmp_path) -> StoredLogits:
    made = StoredLogits(tmp_path)
    made.add("ana", {"a/0": rows(0), "__metadata__": rows(1), "..": rows(2)})
    made.add("../ben", {"b": rows(3)})
    return made


def folders(path) -> list[str]:
    return sorted(each.name for each in path.iterdir())


def test_what_was_added_is_read_back_byte_for_byte(stored):
    assert list(stored) == ["ana", "../ben"]
    assert list(stored["ana"]) == ["a/0", "__metadata__", ".."]
    for number, read in enumerate((*stored["ana"].values(), *stored["../ben"].values())):
        assert read.dtype == np.float16
        assert np.array_equal(read, rows(number))
    assert stored.bytes == 4 * 3 * 5 * 2


def test_a_user_without_shared_pairs_has_no_logits(stored):
    stored.add("eve", {})
    assert stored["eve"] == {}


def test_files_stay_inside_the_folder_whatever_a_user_is_called(stored, tmp_path):
    (folder,) = tmp_path.iterdir()
    assert folder.name.startswith(PREFIX)
    assert folders(folder) == ["0.safetensors", "1.safetensors"]


def test_an_arm_reads_the_pairs_of_its_own_ratio(stored):
    chosen = ChosenLogits(stored, {"ana": [".."], "../ben": []})
    assert list(chosen) == ["ana", "../ben"]
    assert np.array_equal(chosen["ana"][".."], rows(2))
    assert chosen["../ben"] == {}
    assert list(ChosenLogits({"ana": stored["ana"]}, {"ana": ["a/0"]})["ana"]) == ["a/0"]


def test_the_folder_goes_with_the_logits(tmp_path):
    stored = StoredLogits(tmp_path)
    chosen = ChosenLogits(stored, {})
    del stored
    assert folders(tmp_path)
    del chosen
    assert not folders(tmp_path)


def test_what_a_killed_process_left_is_deleted(tmp_path):
    (tmp_path / f"{PREFIX}old").mkdir()
    (tmp_path / f"{PREFIX}old" / "0.safetensors").write_bytes(b"x")
    (tmp_path / "other").mkdir()
    stored = StoredLogits(tmp_path)
    assert len(folders(tmp_path)) == 2
    del stored
    (tmp_path / f"{PREFIX}old").mkdir()
    forget_logits(tmp_path)
    assert folders(tmp_path) == ["other"]


def request(logits) -> AdaptRequest:
    return AdaptRequest(
        arm="rkd_ft", base_id="b", settings="{}", seed=0, kept=(), extra_records=0, logits=logits
    )


def grown(step) -> int:
    """Most bytes that the process takes while and after ``step`` runs."""
    tracemalloc.start()
    try:
        kept = step()
        del kept
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_the_server_holds_one_user_while_it_teaches_and_two_copies_when_it_sends(tmp_path):
    """So 100 users of 60 records of 40 scored tokens at 151,936 take 2 x 471 MiB, below 1 GiB."""
    users, records, tokens = 12, 6, 40
    said = truncated(torch.zeros(tokens, TOP + 1)).numpy()
    own = records * said.nbytes
    stored = StoredLogits(tmp_path)

    def teach() -> None:
        for user in range(users):
            stored.add(str(user), {str(n): said.copy() for n in range(records)})

    def send() -> list:
        pairs = [str(n) for n in range(records)]
        chosen = ChosenLogits(stored, dict.fromkeys(stored, pairs))
        messages = [encode(request(chosen[user])) for user in chosen]
        return [*messages, *map(serialise, messages)]

    assert grown(teach) < 3 * own
    assert stored.bytes == users * own
    assert grown(send) < 2.2 * users * own
    assert 2 * 100 * 60 * said.nbytes < 1 << 30
