"""A device on its way through a stream, with a real model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clients.base import load
from clients.capacity import training_memory_bytes
from clients.dac24.stream import StreamingDevice, adapt_to_stream, describe
from clients.folder import Device, Limits, Policy
from conf.compose import compose
from conf.errors import ModelError
from conf.schema import StreamConfig
from lamp.dialogue.lexicons import Lexicon
from lamp.records import Pair, Query, UserHistory
from models.quantisation import device_memory_bytes
from protocol.messages import AdaptRequest
from protocol.recipe import Stream
from protocol.settings import settings_of

WORDS = ("budget", "bridge", "museum", "storm", "court")
QUERY = "Generate a headline for the following article: the court and the storm"
PAIRS = tuple(
    Pair(f"p{n}", f"the {WORDS[n % 5]} number {n} and the {WORDS[(2 * n) % 5]}", f"{WORDS[n % 5]}!")
    for n in range(25)
)
SETTINGS = StreamConfig(bins=4, bin_bytes=600, every=10, sets=0)
LEXICONS = (Lexicon("city", ("bridge", "museum")), Lexicon("state", ("budget", "court")))


@pytest.fixture
def settings():
    words = ["model=qwen2.5", "task=lamp_4", "task.max_new_tokens=4", "qlora.compute_dtype=float32"]
    return settings_of(compose([*words, "qlora.epochs=1", "qlora.batch_size=4"]))


@pytest.fixture
def base(qwen2_folder, settings):
    return load(qwen2_folder, settings.qlora, 1)


def device(folder: Path, pairs=PAIRS) -> Device:
    history = UserHistory("ana", (), pairs, (Query("q", QUERY, "the court waits"),))
    return Device(folder, history, Policy(0.0), b"s" * 32)


def walk(tmp_path, base, settings, seed=1, pairs=PAIRS, keys=None, **differing) -> StreamingDevice:
    config = replace(SETTINGS, **(keys or {}))
    stream = Stream(settings=config, lexicons=LEXICONS, **differing)
    walker = StreamingDevice(device(tmp_path, pairs), base, stream, settings, seed)
    walker.run()
    return walker


def ids(walker: StreamingDevice) -> list[str]:
    return [each.pair.id for each in walker.buffer]


def test_the_device_trains_after_every_chunk_and_notes_a_point(tmp_path, base, settings):
    diary = walk(tmp_path, base, settings).diary
    assert diary.seen == [0, 10, 20, 25]
    assert len(diary.curve) == 4
    assert all(0 <= point <= 1 for point in diary.curve)
    assert [report.steps for report in diary.reports] == [1, 1, 1]  # 4 records, batches of 4
    assert len(diary.epoch_seconds) == 3


def test_the_stream_is_the_newest_records_where_it_is_limited(tmp_path, base, settings):
    walker = walk(tmp_path, base, settings, keys={"dialogues": 4})
    assert ids(walker) == ["p21", "p22", "p23", "p24"]


def test_fifo_keeps_the_newest_and_asks_about_every_record(tmp_path, base, settings):
    walker = walk(tmp_path, base, settings, replace="fifo")
    assert sorted(ids(walker)) == ["p21", "p22", "p23", "p24"]
    assert walker.diary.annotations == 25


def test_the_annotation_budget_ends_the_selection(tmp_path, base, settings):
    walker = walk(tmp_path, base, settings, replace="fifo", keys={"annotations": 6})
    assert sorted(ids(walker)) == ["p2", "p3", "p4", "p5"]
    assert walker.diary.annotations == 6


def test_the_buffer_stays_within_its_bytes_and_what_does_not_fit_is_counted(
    tmp_path, base, settings
):
    long = Pair("long", "word " * 200, "too long for a bin")
    walker = walk(tmp_path, base, settings, pairs=(*PAIRS[:3], long))
    assert ids(walker) == ["p0", "p1", "p2"]
    assert walker.diary.too_large == 1
    assert 0 < walker.diary.buffer_bytes <= 4 * 600


def test_selection_reads_no_response_unless_it_is_told_to(tmp_path, base, settings):
    blank = tuple(replace(pair, response="budget museum bridge court") for pair in PAIRS)
    same = {"keys": {"reads": "input"}}
    assert ids(walk(tmp_path, base, settings, **same)) == ids(
        walk(tmp_path, base, settings, pairs=blank, **same)
    )
    told = walk(tmp_path, base, settings, pairs=blank, keys={"reads": "pair"})
    assert all(each.domain_score >= 0.2 for each in told.buffer)


def test_the_same_seed_keeps_the_same_records_and_another_need_not(tmp_path, base, settings):
    first, again = (walk(tmp_path, base, settings, replace="random") for _ in range(2))
    assert ids(first) == ids(again)
    assert first.diary.curve == again.diary.curve
    others = {tuple(ids(walk(tmp_path, base, settings, seed, replace="random"))) for seed in (2, 3)}
    assert others != {tuple(ids(first))}


def test_embedding_in_batches_gives_the_same_scores(base, settings):
    def described(batch_size: int):
        stream = Stream(settings=replace(SETTINGS, batch_size=batch_size), lexicons=LEXICONS)
        return describe(PAIRS, base, stream, settings)

    for one, many in zip(described(1), described(25), strict=True):
        assert one.entropy == pytest.approx(many.entropy, abs=1e-6)
        assert one.vector == pytest.approx(many.vector, abs=1e-5)


def test_the_reply_holds_numbers_and_the_adapter_stays(tmp_path, base, settings):
    request = AdaptRequest(arm="dac24", base_id="b", settings="", seed=1, kept=(), extra_records=0)
    stream = Stream(settings=SETTINGS, lexicons=LEXICONS)
    reply = adapt_to_stream(device(tmp_path), base, request, settings, stream)
    assert (reply.records, reply.synthetic, reply.steps) == (4, 0, 3)
    assert reply.curve_seen == (0, 10, 20, 25)
    assert reply.annotations >= 4
    assert len(reply.losses) == 3
    entropies = [each.entropy for each in describe(PAIRS, base, stream, settings)]
    assert reply.variation[0] == pytest.approx(np.std(entropies) / np.mean(entropies), abs=1e-5)
    assert (tmp_path / "adapters" / "dac24" / "adapter_model.safetensors").is_file()


def test_more_sets_write_more_texts_and_leave_the_buffer_alone(tmp_path, base, settings):
    two = {"sets": 2, "min_rouge1": 0.0, "sampling": replace(SETTINGS.sampling, max_new_tokens=4)}
    plain, own = walk(tmp_path, base, settings), walk(tmp_path, base, settings, keys=two)
    assert ids(plain) == ids(own)
    written = sum(own.diary.fates.values())
    assert written == 2 * own.diary.annotations  # each kept record once, also when it left again
    off = walk(tmp_path, base, settings, keys=two, synthesis=False)
    assert not off.diary.fates


def test_a_device_without_room_takes_no_stream_and_one_with_room_tells_what_it_took(
    tmp_path, base, settings
):
    request = AdaptRequest(arm="dac24", base_id="b", settings="", seed=1, kept=(), extra_records=0)
    stream = Stream(settings=SETTINGS, lexicons=LEXICONS)
    needed = training_memory_bytes(base, settings.qlora.max_seq_len)
    small = replace(device(tmp_path), limits=Limits(memory_bytes=needed - 1))
    with pytest.raises(ModelError, match="user ana: does not fit: memory"):
        adapt_to_stream(small, base, request, settings, stream)
    enough = replace(device(tmp_path, PAIRS[:2]), limits=Limits(memory_bytes=needed))
    reply = adapt_to_stream(enough, base, request, settings, stream)
    assert reply.peak_memory_bytes == needed > device_memory_bytes(base.model)
