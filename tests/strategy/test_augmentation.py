"""Augmentation asks the models once for each content, whatever the share or the order of users."""

from __future__ import annotations

import pytest

from conf.schema import AugmenterConfig, FiltersConfig, TaskConfig
from lamp.records import Pair
from lamp.tasks import task
from strategy.augmentation import Counters, Reply, augment
from strategy.cache import Cache
from strategy.filters import select
from strategy.progress import LoggedProgress

TASK = task(TaskConfig(name="lamp_4", max_new_tokens=8))
CONFIG = AugmenterConfig(k=2)
RECORDS = tuple(
    Pair(str(number), f"some words about {number}", f"t{number}") for number in range(4)
)


class Generator:
    """Writes a readable reply out of its seed: replies differ by sample and not by order."""

    identity = "writer"

    def __init__(self):
        self.asked = 0

    def write(self, prompts, seeds, on_done):
        self.asked += len(prompts)
        on_done(len(prompts))
        return [Reply(f"Input: [words {seed}], Response: [t]", 5) for seed in seeds]


class NliScorer:
    """Is sure that everything follows from everything."""

    identity = "judge"

    def __init__(self):
        self.asked = 0

    def cut(self, pairs):
        return sum(len(first) > 50 for first, _ in pairs)

    def both_ways(self, pairs):
        self.asked += len(pairs)
        return [(0.9, 0.8)] * len(pairs)


@pytest.fixture
def run(tmp_path):
    def once(shared, writer=None, judge=None, seed=0):
        counters = Counters()
        candidates = augment(
            shared,
            task=TASK,
            config=CONFIG,
            seed=seed,
            writer=writer or Generator(),
            judge=judge or NliScorer(),
            cache=Cache(tmp_path / "cache.sqlite"),
            progress=LoggedProgress(),
            counters=counters,
        )
        return candidates, counters

    return once


def test_each_shared_pair_gets_k_scored_candidates_in_order(run):
    candidates, counters = run({"u": RECORDS[:2]})
    assert [each.pair.id for each in candidates["u"]] == ["0/0", "0/1", "1/0", "1/1"]
    assert candidates["u"][0].scores.entails == 0.9
    assert (counters.generated_replies, counters.generated_tokens, counters.nli_pairs) == (4, 20, 4)


def test_what_the_judge_saw_a_part_of_is_counted_from_the_cache_too(run):
    class Short(NliScorer):
        def cut(self, pairs):
            return len(pairs)

    _, counters = run({"u": RECORDS[:2]}, judge=Short())
    _, again = run({"u": RECORDS[:2]}, judge=Short())
    assert (counters.cut_pairs, again.cut_pairs, again.nli_pairs) == (4, 4, 0)


def test_a_smaller_share_after_a_larger_one_asks_no_model(run):
    large, _ = run({"u": RECORDS})
    small, counters = run({"u": RECORDS[:2]})
    assert counters == Counters()
    assert small["u"] == large["u"][:4]


def test_a_record_that_two_users_share_is_written_once(run):
    writer, judge = Generator(), NliScorer()
    candidates, _ = run({"u1": RECORDS[:1], "u2": RECORDS[:1]}, writer, judge)
    assert (writer.asked, judge.asked) == (2, 2)
    assert candidates["u1"] == candidates["u2"]


def test_the_order_of_users_does_not_change_what_they_get(run, tmp_path):
    first, _ = run({"u1": RECORDS[:2], "u2": RECORDS[2:]})
    (tmp_path / "cache.sqlite").unlink()
    second, _ = run({"u2": RECORDS[2:], "u1": RECORDS[:2]})
    assert first == second


def test_another_seed_writes_other_pairs(run):
    first, _ = run({"u": RECORDS}, seed=0)
    second, _ = run({"u": RECORDS}, seed=1)
    assert first != second


def test_unreadable_replies_are_counted_and_never_scored(run):
    class Mumbling(Generator):
        def write(self, prompts, seeds, on_done):
            return [Reply("no idea", 2) for _ in prompts]

    judge = NliScorer()
    candidates, _ = run({"u": RECORDS}, Mumbling(), judge)
    selection = select(candidates["u"], FiltersConfig())
    assert selection.rejected == {"no_input": 8}
    assert judge.asked == 0


def test_a_user_who_shares_nothing_gets_nothing(run):
    candidates, counters = run({"u": ()})
    assert candidates == {"u": ()}
    assert counters == Counters()


def test_several_writers_take_turns_and_each_sample_says_whose_it_is(tmp_path):
    class Other(Generator):
        identity = "other"

        def write(self, prompts, seeds, on_done):
            self.asked += len(prompts)
            return [Reply("Input: [from the other], Response: [t]", 5) for _ in prompts]

    first, second = Generator(), Other()
    found = augment(
        {"u": RECORDS[:2]},
        task=TASK,
        config=AugmenterConfig(k=3),
        seed=0,
        writer=first,
        judge=NliScorer(),
        cache=Cache(tmp_path / "cache.sqlite"),
        progress=LoggedProgress(),
        counters=Counters(),
        further=[second],
    )["u"]
    assert (first.asked, second.asked) == (4, 2)
    assert [each.writer for each in found] == ["writer 1", "writer 2", "writer 1"] * 2
    assert [each.pair.input == "from the other" for each in found] == [False, True, False] * 2
    chosen = select(found, FiltersConfig(eps_min_len=0.0))
    assert chosen.kept_by == {"writer 1": 4, "writer 2": 2}
